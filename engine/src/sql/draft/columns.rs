//! Physical expressions as the draft needs them: columns by index, moved and replaced.

use std::sync::Arc;

use chrono_tz::Tz;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::expressions::{
    BinaryExpr, Column, InListExpr, IsNotNullExpr, IsNullExpr, LikeExpr, Literal, NegativeExpr, NotExpr,
};

use crate::error::Result;
use crate::sql::plan::{Expr, WindowShape};

/// Which boundary of its window a column is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// window_start
    Start,
    /// window_end
    End,
    /// window_time
    Time,
}

/// A column that is a boundary of its row's window.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowMark {
    /// Which boundary.
    pub role: Role,
    /// The window's shape.
    pub shape: WindowShape,
    /// Zone of wall-clock windows.
    pub zone: Option<Tz>,
}

/// The column's index, where the expression is nothing but a column.
pub fn column_index(expr: &Expr) -> Option<usize> {
    expr.downcast_ref::<Column>().map(Column::index)
}

/// Whether repeating the expression costs nothing.
pub fn is_column_or_literal(expr: &Expr) -> bool {
    expr.is::<Column>() || expr.is::<Literal>()
}

/// Replaces each column by what `to` answers for its index.
pub fn substitute(expr: &Expr, to: &dyn Fn(usize) -> Expr) -> Result<Expr> {
    let replaced = Arc::clone(expr).transform_up(|e| match column_index(&e) {
        Some(i) => Ok(Transformed::yes(to(i))),
        None => Ok(Transformed::no(e)),
    })?;
    Ok(replaced.data)
}

/// Moves each column from index `i` to `to(i)`.
pub fn remap(expr: &Expr, to: &dyn Fn(usize) -> usize) -> Result<Expr> {
    let moved = Arc::clone(expr).transform_up(|e| match e.downcast_ref::<Column>() {
        Some(c) => Ok(Transformed::yes(Arc::new(Column::new(c.name(), to(c.index()))) as Expr)),
        None => Ok(Transformed::no(e)),
    })?;
    Ok(moved.data)
}

/// Calls `f` with the index of every column in the expression, repeated ones too.
pub fn for_each_column(expr: &Expr, f: &mut dyn FnMut(usize)) {
    let visit = expr.apply(|e| {
        if let Some(i) = column_index(e) {
            f(i);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visit.expect("the visitor answers no error");
}

/// Whether the expression cannot fail and always answers the same for the same row, so that it may be
/// evaluated for rows that another condition would have kept away, or be moved below a join.
pub fn is_safe(expr: &Expr) -> bool {
    let mut safe = true;
    let visit = expr.apply(|e| {
        let known = e.is::<Column>()
            || e.is::<Literal>()
            || e.is::<IsNullExpr>()
            || e.is::<IsNotNullExpr>()
            || e.is::<NotExpr>()
            || e.is::<LikeExpr>()
            || e.is::<InListExpr>()
            || e.is::<NegativeExpr>()
            || e.downcast_ref::<BinaryExpr>().is_some_and(|b| !matches!(b.op(), Operator::Divide | Operator::Modulo));
        safe &= known;
        Ok(if known { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    visit.expect("the visitor answers no error");
    safe
}

/// The expression with columns by index, and the type of every part: what fingerprints are made of.
/// Column names are not in it, since generated ones change with DataFusion's release.
pub fn expr_text(expr: &Expr) -> String {
    let named = substitute(expr, &|i| Arc::new(Column::new("", i)) as Expr).unwrap_or_else(|_| Arc::clone(expr));
    let mut text = named.to_string();
    let visit = expr.apply(|e| {
        if let Some(l) = e.downcast_ref::<Literal>() {
            text.push_str(&format!(" {}", l.value().data_type()));
        }
        Ok(TreeNodeRecursion::Continue)
    });
    visit.expect("the visitor answers no error");
    text
}
