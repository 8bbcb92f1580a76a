//! Data in, text out.

use super::*;

#[test]
fn a_file_is_read_in_order() {
    let all = parse("SET 'a' = 'b'; -- c\nSELECT 1;;\nSHOW TABLES").expect("it is right");
    assert_eq!(all.iter().map(|p| p.text.as_str()).collect::<Vec<_>>(), ["SET 'a' = 'b'", "SELECT 1", "SHOW TABLES"]);
}
