//! ROW, ARRAY and MAP: constructors, access and size.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int32Array, ListArray, MapArray, StructArray, UInt32Array, new_null_array};
use arrow::buffer::OffsetBuffer;
use arrow::compute::{interleave, take};
use arrow::datatypes::DataType;

use super::cast::{convert, convert_all};
use super::columns::Batch;
use super::conditional::common_type;
use super::scalar::{Definition, Site, function, is_integer};
use crate::error::{Error, Result, nearest};
use crate::stream::SqlType;

/// Functions of nested values.
pub(super) const FUNCTIONS: &[Definition] = &[
    function(&["$row", "ROW"], "aa*", row_type, row),
    function(&["$array"], "aa*", array_type, array),
    function(&["$map", "MAP"], "aaa*", map_type, map),
    function(&["$field"], "at", field_type, field),
    function(&["$item"], "aa", item_type, item),
    function(&["CARDINALITY"], "a", cardinality_type, cardinality),
    function(&["ELEMENT"], "a", element_type, element),
    function(&["ARRAY_CONTAINS"], "aa", contains_type, contains),
];

fn row_type(site: &Site) -> Result<SqlType> {
    Ok(SqlType::Row((0..site.len()).map(|i| (format!("EXPR${i}"), site.sql(i), true)).collect()))
}

fn row(batch: &Batch) -> Result<ArrayRef> {
    let DataType::Struct(fields) = batch.out.arrow() else { return Err(Error::internal("a ROW is an Arrow struct")) };
    let columns = (0..batch.len()).map(|i| convert(&batch.full(i)?, &batch.sql(i), &batch.sql(i), batch.session, false));
    Ok(Arc::new(StructArray::try_new_with_length(fields, columns.collect::<Result<_>>()?, None, batch.rows)?))
}

fn common(site: &Site, from: usize, step: usize, what: &str) -> Result<SqlType> {
    let mut out: Option<SqlType> = None;
    for i in (from..site.len()).step_by(step).filter(|i| !site.is_null(*i)) {
        let t = site.sql(i);
        out = Some(match out {
            None => t,
            Some(seen) => common_type(&seen, &t).ok_or_else(|| Error::user(format!("{what} hold one type, found {seen} and {t}")))?,
        });
    }
    Ok(out.unwrap_or(SqlType::STRING))
}

fn array_type(site: &Site) -> Result<SqlType> {
    Ok(SqlType::Array(Box::new(common(site, 0, 1, "the elements of an ARRAY")?), true))
}

/// Columns woven into rows: `a1 b1 a2 b2 …`.
fn weave(columns: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
    let parts: Vec<&dyn Array> = columns.iter().map(|c| c.as_ref()).collect();
    let order: Vec<(usize, usize)> = (0..rows).flat_map(|row| (0..parts.len()).map(move |c| (c, row))).collect();
    Ok(interleave(&parts, &order)?)
}

fn array(batch: &Batch) -> Result<ArrayRef> {
    let SqlType::Array(t, null) = &batch.out else { return Err(Error::internal("ARRAY[…] is an array")) };
    let values = weave(&convert_all(batch, 0..batch.len(), t)?, batch.rows)?;
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(batch.len(), batch.rows));
    Ok(Arc::new(ListArray::try_new(Arc::new(t.field("item", *null)), offsets, values, None)?))
}

fn map_type(site: &Site) -> Result<SqlType> {
    if !site.len().is_multiple_of(2) {
        return Err(Error::user("MAP takes pairs of a key and a value").help("write MAP['a', 1, 'b', 2]"));
    }
    let (k, v) = (common(site, 0, 2, "the keys of a MAP")?, common(site, 1, 2, "the values of a MAP")?);
    Ok(SqlType::Map(Box::new(k), Box::new(v), true))
}

fn map(batch: &Batch) -> Result<ArrayRef> {
    let SqlType::Map(k, v, _) = &batch.out else { return Err(Error::internal("MAP[…] is a map")) };
    let side = |from: usize, t: &SqlType| -> Result<ArrayRef> {
        let columns = (from..batch.len()).step_by(2).map(|i| convert(&batch.full(i)?, &batch.sql(i), t, batch.session, false));
        weave(&columns.collect::<Result<Vec<_>>>()?, batch.rows)
    };
    let (keys, values) = (side(0, k)?, side(1, v)?);
    if keys.null_count() > 0 {
        return Err(Error::data("a key of a MAP is NULL"));
    }
    let DataType::Map(entries, sorted) = batch.out.arrow() else { return Err(Error::internal("a MAP is an Arrow map")) };
    let DataType::Struct(fields) = entries.data_type() else { return Err(Error::internal("entries are structs")) };
    let rows = StructArray::try_new(fields.clone(), vec![keys, values], None)?;
    let offsets = OffsetBuffer::from_lengths(std::iter::repeat_n(batch.len() / 2, batch.rows));
    Ok(Arc::new(MapArray::try_new(entries.clone(), offsets, rows, None, sorted)?))
}

fn field_type(site: &Site) -> Result<SqlType> {
    let name = site.text_literal(1).unwrap_or("");
    let SqlType::Row(fields) = site.sql(0) else {
        return Err(Error::user(format!("'.{name}' takes a ROW, found {}", site.sql(0))));
    };
    match fields.iter().find(|(n, ..)| n == name) {
        Some((_, t, _)) => Ok(t.clone()),
        None => {
            let e = Error::user(format!("the ROW has no field '{name}'"));
            Err(match nearest(name, fields.iter().map(|(n, ..)| n.as_str())) {
                Some(n) => e.help(format!("did you mean {n}?")),
                None => e.help(format!("its fields are {}", fields.iter().map(|f| f.0.as_str()).collect::<Vec<_>>().join(", "))),
            })
        }
    }
}

fn field(batch: &Batch) -> Result<ArrayRef> {
    let rows = batch.full(0)?;
    let name = batch.text(1)?;
    let rows = rows.as_struct();
    let column =
        name.get(0).and_then(|n| rows.column_by_name(n)).ok_or_else(|| Error::internal("a field planned for a ROW is not in it"))?;
    // A field of a NULL row is NULL, whatever lies below.
    match rows.nulls() {
        Some(nulls) if nulls.null_count() > 0 => Ok(arrow::compute::nullif(column, &BooleanArray::new(!nulls.inner(), None))?),
        _ => Ok(column.clone()),
    }
}

fn item_type(site: &Site) -> Result<SqlType> {
    match site.sql(0) {
        SqlType::Array(t, _) => {
            if site.int_literal(1).is_some_and(|n| n < 1) {
                return Err(Error::user("an array's first element has the index 1"));
            }
            if !site.is_null(1) && !is_integer(&site.sql(1)) {
                return Err(Error::user(format!("an array's index is an integer, found {}", site.sql(1))));
            }
            Ok(*t)
        }
        SqlType::Map(k, v, _) => {
            if !site.is_null(1) && common_type(&k, &site.sql(1)).is_none() {
                return Err(Error::user(format!("the keys of the map are {k}, found {}", site.sql(1))));
            }
            Ok(*v)
        }
        t => Err(Error::user(format!("'[…]' takes an ARRAY or a MAP, found {t}"))),
    }
}

fn item(batch: &Batch) -> Result<ArrayRef> {
    let container = batch.full(0)?;
    if *container.data_type() == DataType::Null {
        return Ok(new_null_array(&batch.out.arrow(), batch.rows));
    }
    match batch.sql(0) {
        SqlType::Array(..) => {
            let index = batch.longs(1)?;
            let list = container.as_list::<i32>();
            let at = |row: usize| -> Result<Option<u32>> {
                let Some(i) = index.get(row).filter(|_| list.is_valid(row)) else { return Ok(None) };
                let offset = list.value_offsets()[row];
                if i < 1 {
                    return Err(Error::data(format!("an array's first element has the index 1, found {i}")));
                }
                Ok((i <= list.value_length(row).into()).then(|| offset as u32 + i as u32 - 1))
            };
            let order = (0..batch.rows).map(at).collect::<Result<UInt32Array>>()?;
            Ok(take(list.values(), &order, None)?)
        }
        SqlType::Map(k, ..) => {
            let map = container.as_map();
            let wanted = convert(&batch.full(1)?, &batch.sql(1), &k, batch.session, false)?;
            let compare = arrow::array::make_comparator(map.keys(), &wanted, Default::default())?;
            let at = |row: usize| {
                if map.is_null(row) || wanted.is_null(row) {
                    return None;
                }
                let (from, to) = (map.value_offsets()[row] as usize, map.value_offsets()[row + 1] as usize);
                (from..to).rev().find(|i| compare(*i, row).is_eq()).map(|i| i as u32)
            };
            let order: UInt32Array = (0..batch.rows).map(at).collect();
            Ok(take(map.values(), &order, None)?)
        }
        t => Err(Error::internal(format!("[…] planned on {t}"))),
    }
}

fn cardinality_type(site: &Site) -> Result<SqlType> {
    match site.sql(0) {
        SqlType::Array(..) | SqlType::Map(..) => Ok(SqlType::Int),
        t => Err(Error::user(format!("CARDINALITY takes an ARRAY or a MAP, found {t}"))),
    }
}

fn cardinality(batch: &Batch) -> Result<ArrayRef> {
    let values = batch.full(0)?;
    let offsets = match values.data_type() {
        DataType::Map(..) => values.as_map().value_offsets(),
        _ => values.as_list::<i32>().value_offsets(),
    };
    let size = |row: usize| values.is_valid(row).then(|| offsets[row + 1] - offsets[row]);
    Ok(Arc::new((0..batch.rows).map(size).collect::<Int32Array>()))
}

fn element_type(site: &Site) -> Result<SqlType> {
    match site.sql(0) {
        SqlType::Array(t, _) => Ok(*t),
        t => Err(Error::user(format!("ELEMENT takes an ARRAY, found {t}"))),
    }
}

fn element(batch: &Batch) -> Result<ArrayRef> {
    let values = batch.full(0)?;
    let list = values.as_list::<i32>();
    let at = |row: usize| match list.value_length(row) {
        _ if list.is_null(row) => Ok(None),
        0 => Ok(None),
        1 => Ok(Some(list.value_offsets()[row] as u32)),
        n => Err(Error::data(format!("ELEMENT takes an array of one element, found {n}"))),
    };
    Ok(take(list.values(), &(0..batch.rows).map(at).collect::<Result<UInt32Array>>()?, None)?)
}

fn contains_type(site: &Site) -> Result<SqlType> {
    match site.sql(0) {
        SqlType::Array(t, _) if site.is_null(1) || common_type(&t, &site.sql(1)).is_some() => Ok(SqlType::Boolean),
        SqlType::Array(t, _) => Err(Error::user(format!("the elements of the array are {t}, found {}", site.sql(1)))),
        t => Err(Error::user(format!("ARRAY_CONTAINS takes an ARRAY, found {t}"))),
    }
}

fn contains(batch: &Batch) -> Result<ArrayRef> {
    let values = batch.full(0)?;
    let list = values.as_list::<i32>();
    let SqlType::Array(t, _) = batch.sql(0) else { return Err(Error::internal("ARRAY_CONTAINS planned without an array")) };
    let wanted = convert(&batch.full(1)?, &batch.sql(1), &t, batch.session, false)?;
    let items = list.values();
    let compare = arrow::array::make_comparator(items, &wanted, Default::default())?;
    batch.truths(|row| {
        let (from, to) = (list.value_offsets()[row] as usize, list.value_offsets()[row + 1] as usize);
        let hit = |i: usize| match wanted.is_null(row) {
            true => items.is_null(i),
            false => items.is_valid(i) && compare(i, row).is_eq(),
        };
        Ok(list.is_valid(row).then(|| (from..to).any(hit)))
    })
}
