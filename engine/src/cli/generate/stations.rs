//! The static side of the bike-share demo: stations with their postcodes, made up from a seed.
//!
//! The columns are those of the public list, in its order, and so is its dirt: about one station in forty
//! has no postcode, some have no docks, coordinates come with six or with up to sixteen digits. A station's
//! code is its district times 1000 plus a number; the city has 20 districts, its suburbs are 21 to 48.

use std::f64::consts::TAU;
use std::io::{self, Write};

use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// One station of the list.
#[derive(Debug, Clone, PartialEq)]
pub struct Station {
    /// What the feed calls it: `16107`.
    pub code: u32,
    /// The operator's own number.
    pub id: u64,
    /// Two places, mostly.
    pub name: String,
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
    /// Docks; 0 where the list does not know.
    pub capacity: u32,
    /// Five digits, or empty.
    pub postcode: String,
    /// The commune.
    pub commune: &'static str,
    /// The commune's official code.
    pub insee: u32,
}

/// The header, which is the real list's.
pub const HEADER: &str = "stationCode,station_id,name,lat,lon,capacity,postcode,nom_arrondissement_communes,code_insee_commune";

const PLACES: &[&str] = &[
    "Acacia Rouge",
    "Belle Étoile",
    "Bois Joli",
    "Cèdre Bleu",
    "Chêne Creux",
    "Clos d'Avril",
    "Cour des Forges",
    "Dame Blanche",
    "Eaux Vives",
    "Écluse Neuve",
    "Épi d'Or",
    "Étang Noir",
    "Figuier",
    "Gué aux Loups",
    "Haute Garenne",
    "Île aux Merles",
    "Jardin d'Hiver",
    "Lanterne",
    "Mare aux Grues",
    "Marronnier",
    "Mille Roses",
    "Noyer Sec",
    "Orme Long",
    "Passe-Midi",
    "Petit Gris",
    "Pierre Levée",
    "Pont Renard",
    "Pré d'Août",
    "Puits Salé",
    "Quatre Bornes",
    "Ruche",
    "Sablière",
    "Saule",
    "Sept Clefs",
    "Source Froide",
    "Tête Ronde",
    "Trois Ponts",
    "Val Perdu",
    "Verger",
    "Vieille Forge",
    "Vigne Haute",
];

/// The suburbs: none of them is on a map.
const SUBURBS: &[&str] = &[
    "Aubrelle",
    "Bellegrive",
    "Boisclair",
    "Chantemare",
    "Clairvigne",
    "Combreux-le-Haut",
    "Courtalange",
    "Doucerive",
    "Écumont",
    "Fontrelle",
    "Garennes-sous-Bois",
    "Grandpré-l'Étang",
    "Hautecombe-sur-Seine",
    "Issancourt-le-Pont",
    "Jolibois",
    "La Verderie",
    "Les Ormelles",
    "Longuerive",
    "Marnebelle",
    "Montravel",
    "Noisemont",
    "Orvallée",
    "Pierreclos-sur-Marne",
    "Quatrebois",
    "Rochebrune-en-Plaine",
    "Saulnières",
    "Tremblaye",
    "Vauxmarin",
];

const DISTRICTS: u32 = 20;

/// Makes `count` stations; two thirds lie in the city.
pub fn make_stations(seed: u64, count: usize) -> Vec<Station> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let suburbs = SUBURBS.len() as u32;
    // Districts differ in size as real ones do: a weight of 1 in the centre to 6 at the edge, 1 or 2 in a suburb.
    let weight = |area: u32| if area <= DISTRICTS { 1 + area / 4 } else { 1 + u32::from(area.is_multiple_of(4)) };
    let total: u32 = (1..=DISTRICTS + suburbs).map(weight).sum();
    let mut stations = Vec::with_capacity(count);
    let mut weight_before = 0;
    for area in 1..=DISTRICTS + suburbs {
        // Shares are cut from the running sum, so that they add up to `count` at any count.
        let cut = |w: u32| (count as u64 * u64::from(w) / u64::from(total)) as usize;
        let here = cut(weight_before + weight(area)) - cut(weight_before);
        weight_before += weight(area);
        for nth in 0..here {
            stations.push(make_station(&mut rng, area, nth as u32));
        }
    }
    stations
}

fn make_station(rng: &mut ChaCha8Rng, area: u32, nth: u32) -> Station {
    // Numbers run 1..=42 and then from 101, as later stations were numbered.
    let number = if nth < 42 { nth + 1 } else { nth + 59 };
    let (angle, radius, postcode, commune, insee);
    if area <= DISTRICTS {
        // A spiral from the centre outwards.
        angle = f64::from(area) * 0.9;
        radius = 0.006 + 0.0021 * f64::from(area);
        (postcode, commune, insee) = (75000 + area, "Paris", 75056);
    } else {
        let suburb = area - DISTRICTS - 1;
        let department = [92, 93, 94][(suburb % 3) as usize];
        angle = TAU * f64::from(suburb) / SUBURBS.len() as f64;
        radius = 0.085 + 0.004 * f64::from(suburb % 5);
        // Two post offices in a suburb.
        postcode = department * 1000 + 100 + 10 * suburb + 5 * (nth % 2);
        commune = SUBURBS[suburb as usize];
        insee = department * 1000 + 1 + suburb;
    }
    let rounded = |degrees: f64| (degrees * 1e6).round() / 1e6;
    let mut near = |centre: f64| {
        // Sines differ in their last digit between machines; rounded they do not.
        let exact = rounded(centre) + (rng.random::<f64>() - 0.5) * 0.018;
        if rng.random_bool(0.3) { rounded(exact) } else { exact }
    };
    let lat = near(48.8566 + radius * angle.sin());
    let lon = near(2.3522 + radius * 1.5 * angle.cos());
    let capacity = if rng.random_bool(0.02) { rng.random_range(0..2) } else { rng.random_range(12..=60) };
    let id = rng.random_range(10_000_000..2_000_000_000);
    let postcode = if rng.random_bool(0.025) { String::new() } else { postcode.to_string() };
    Station { code: area * 1000 + number, id, name: make_name(rng, commune), lat, lon, capacity, postcode, commune, insee }
}

fn make_name(rng: &mut ChaCha8Rng, commune: &str) -> String {
    let mut place = || *PLACES.choose(rng).expect("the list of places is not empty");
    let (a, b) = (place(), place());
    match rng.random_range(0..10) {
        0 => format!("Gare de {commune} - {a}"),
        1 => format!("Place {a}"),
        _ if a != b => format!("{a} - {b}"),
        _ => a.to_string(),
    }
}

/// Writes the header and the stations as CSV. No made-up name has a comma or a quote, so none is quoted.
///
/// # Errors
/// `out` does not take them.
pub fn write_stations(out: &mut dyn Write, stations: &[Station]) -> io::Result<()> {
    let mut text = format!("{HEADER}\n");
    for s in stations {
        text.push_str(&format!(
            "{},{},{},{},{},{},{},{},{}\n",
            s.code, s.id, s.name, s.lat, s.lon, s.capacity, s.postcode, s.commune, s.insee
        ));
    }
    out.write_all(text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_list_has_the_shape_and_the_dirt_of_the_real_one() {
        let stations = make_stations(1, 1485);
        assert_eq!(stations.len(), 1485);
        assert_eq!(stations.iter().map(|s| s.code).collect::<BTreeSet<_>>().len(), 1485, "codes are unique");
        let unknown = stations.iter().filter(|s| s.postcode.is_empty()).count();
        assert!((20..60).contains(&unknown), "{unknown} stations without a postcode");
        let postcodes = stations.iter().map(|s| &s.postcode).collect::<BTreeSet<_>>().len();
        assert!((70..90).contains(&postcodes), "{postcodes} postcodes");
        assert!([16107, 32017].iter().all(|c| stations.iter().any(|s| s.code == *c)), "the stations that the docs name exist");
    }

    #[test]
    fn nine_columns_a_line_at_any_count() {
        for count in [0, 1, 50, 300] {
            let mut out = Vec::new();
            write_stations(&mut out, &make_stations(7, count)).expect("memory takes all");
            let text = String::from_utf8(out).expect("UTF-8");
            assert_eq!(text.lines().count(), count + 1);
            assert!(text.lines().all(|l| l.split(',').count() == 9 && !l.contains('"')));
        }
    }
}
