//! Literals get Flink's types: `1` is INT, `3000000000` BIGINT, `1.5` DECIMAL(2, 1), `1e3` DOUBLE.
//!
//! DataFusion reads every whole number as BIGINT and has no hook for it, so the strict pass wraps each
//! number in a call, `"$number"('1')`, which plans with the right type and folds to a literal:
//!
//! ```text
//! SELECT a + 1 … LIMIT 10   →   SELECT a + "$number"('1') … LIMIT 10
//! ```
//!
//! Left alone: LIMIT, OFFSET and FETCH, window frames, ORDER BY ordinals, and the places of ROUND and TRUNCATE (a
//! DECIMAL's scale depends on them, so they must be literals while planning). The same pass rewrites what
//! DataFusion would plan past our functions: BETWEEN becomes two comparisons, `CASE x WHEN v` becomes
//! `CASE WHEN x = v`, LIKE becomes `"$like"`, IN a list `"$in"`, `ROW(…)` `"$row"`.

use std::ops::ControlFlow;

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::logical_expr::Expr;
use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator, Expr as Ast, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident,
    ObjectName, ObjectNamePart, OrderByKind, Query, UnaryOperator, Value, VisitMut, VisitorMut, WindowFrameBound, WindowType,
};

use super::columns::Batch;
use super::scalar::{Definition, Site, function};
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// The function that a number literal becomes.
pub(super) const FUNCTIONS: &[Definition] = &[function(&["$number"], "t", number_type, number)];

/// Types the literals of a query and of all queries inside it, and rewrites what the module's header lists.
/// To be run once on each parsed query, before it is planned.
pub fn type_literals_ast(query: &mut Query) {
    let _ = query.visit(&mut Pass);
}

/// The same for an expression that stands alone (a computed column, a watermark, a partition value).
pub fn type_literals_expr(expr: &mut Ast) {
    let _ = expr.visit(&mut Pass);
}

/// Folds the number calls of a planned expression into literals.
pub fn type_literals(expr: Expr) -> Expr {
    let fold = |e: Expr| {
        if let Expr::ScalarFunction(f) = &e
            && f.func.name() == "$number"
            && let [Expr::Literal(ScalarValue::Utf8(Some(text)), _)] = f.args.as_slice()
            && let Ok((value, _)) = parse(text)
        {
            return Ok(Transformed::yes(Expr::Literal(value, None)));
        }
        Ok(Transformed::no(e))
    };
    match expr.clone().transform_up(fold) {
        Ok(done) => done.data,
        Err(_) => expr,
    }
}

struct Pass;

impl VisitorMut for Pass {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Ast) -> ControlFlow<()> {
        match expr {
            // `-5` is one literal: -2147483648 is an INT.
            Ast::UnaryOp { op: UnaryOperator::Minus, expr: inner } => {
                if let Some(text) = number_text(inner) {
                    *expr = number_call(format!("-{text}"));
                }
            }
            Ast::Between { expr: x, negated, low, high } => {
                let (x, low, high) = (operand(x), operand(low), operand(high));
                let (first, second, and) = match negated {
                    false => (BinaryOperator::GtEq, BinaryOperator::LtEq, BinaryOperator::And),
                    true => (BinaryOperator::Lt, BinaryOperator::Gt, BinaryOperator::Or),
                };
                let both = binary(binary(x.clone(), first, low), and, binary(x, second, high));
                *expr = Ast::Nested(Box::new(both));
            }
            Ast::Case { operand: value, conditions, .. } => {
                if let Some(value) = value.take() {
                    for when in conditions {
                        when.condition = binary(operand(&value), BinaryOperator::Eq, operand(&when.condition));
                    }
                }
            }
            Ast::Like { negated, any: false, expr: x, pattern, escape_char } => {
                let mut args = vec![(**x).clone(), (**pattern).clone()];
                args.extend(escape_char.take().map(Ast::Value));
                *expr = negate(call("$like", args), *negated);
            }
            Ast::InList { expr: x, list, negated } => {
                let args = std::iter::once((**x).clone()).chain(list.drain(..)).collect();
                *expr = negate(call("$in", args), *negated);
            }
            Ast::Tuple(items) => *expr = call("$row", std::mem::take(items)),
            Ast::CompoundFieldAccess { root, access_chain } => {
                let mut plain = matches!(**root, Ast::Identifier(_));
                for access in access_chain {
                    match access {
                        // DataFusion reads the leading names of `a.b[1].c` itself and wants texts behind them.
                        AccessExpr::Dot(name) if !plain => {
                            if let Ast::Identifier(Ident { value, .. }) = name {
                                *name = Ast::Value(Value::SingleQuotedString(value.clone()).into());
                            }
                        }
                        AccessExpr::Dot(_) => {}
                        AccessExpr::Subscript(_) => plain = false,
                    }
                }
            }
            Ast::Function(f) => {
                if let Some(WindowType::WindowSpec(spec)) = &mut f.over
                    && let Some(frame) = &mut spec.window_frame
                {
                    // Bounds are counts, not values: hidden from the pass, they stay plain numbers.
                    keep_bound(&mut frame.start_bound);
                    frame.end_bound.as_mut().into_iter().for_each(keep_bound);
                }
                // Function names ignore case, quoted or not; ours are registered in lower case.
                let [ObjectNamePart::Identifier(name)] = f.name.0.as_mut_slice() else { return ControlFlow::Continue(()) };
                name.value.make_ascii_lowercase();
                if matches!(name.value.as_str(), "round" | "truncate")
                    && let FunctionArguments::List(list) = &mut f.args
                    && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(places))) = list.args.get_mut(1)
                {
                    keep(places);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Ast) -> ControlFlow<()> {
        if let Some(text) = number_text(expr) {
            *expr = number_call(text);
        } else if let Ast::Prefixed { prefix, value } = expr
            && prefix.value == KEPT
        {
            *expr = (**value).clone();
            unwrap_number(expr);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        use datafusion::sql::sqlparser::ast::LimitClause;
        match &mut query.limit_clause {
            Some(LimitClause::LimitOffset { limit, offset, .. }) => {
                limit.as_mut().into_iter().for_each(keep);
                offset.as_mut().into_iter().for_each(|o| keep(&mut o.value));
            }
            Some(LimitClause::OffsetCommaLimit { offset, limit }) => {
                keep(offset);
                keep(limit);
            }
            None => {}
        }
        if let Some(fetch) = &mut query.fetch {
            fetch.quantity.as_mut().into_iter().for_each(keep);
        }
        if let Some(order) = &mut query.order_by
            && let OrderByKind::Expressions(items) = &mut order.kind
        {
            items.iter_mut().for_each(|o| keep(&mut o.expr));
        }
        ControlFlow::Continue(())
    }
}

/// Marks a number that the pass must leave alone; the mark is taken off on the way up.
const KEPT: &str = "$kept";

fn keep(expr: &mut Ast) {
    let number = match &*expr {
        Ast::UnaryOp { op: UnaryOperator::Minus, expr } => number_text(expr).is_some(),
        other => number_text(other).is_some(),
    };
    if number {
        let value = Box::new(expr.clone());
        *expr = Ast::Prefixed { prefix: Ident::new(KEPT), value };
    }
}

fn keep_bound(bound: &mut WindowFrameBound) {
    if let WindowFrameBound::Preceding(Some(n)) | WindowFrameBound::Following(Some(n)) = bound {
        keep(n);
    }
}

fn number_text(expr: &Ast) -> Option<String> {
    match expr {
        Ast::Value(v) => match &v.value {
            Value::Number(text, _) => Some(text.to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// The plain number that a wrapped one was.
fn unwrap_number(expr: &mut Ast) {
    if let Ast::Function(f) = expr
        && let FunctionArguments::List(list) = &f.args
        && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(Ast::Value(v)))] = list.args.as_slice()
        && let Value::SingleQuotedString(text) = &v.value
    {
        let plain = |t: &str| Ast::Value(Value::Number(t.to_string(), false).into());
        *expr = match text.strip_prefix('-') {
            Some(rest) => Ast::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(plain(rest)) },
            None => plain(text),
        };
    }
}

fn number_call(text: String) -> Ast {
    call("$number", vec![Ast::Value(Value::SingleQuotedString(text).into())])
}

/// An operand in parentheses, where it is not a single word.
fn operand(expr: &Ast) -> Ast {
    match expr {
        Ast::Identifier(_) | Ast::CompoundIdentifier(_) | Ast::Value(_) | Ast::Function(_) | Ast::Nested(_) => expr.clone(),
        other => Ast::Nested(Box::new(other.clone())),
    }
}

fn binary(left: Ast, op: BinaryOperator, right: Ast) -> Ast {
    Ast::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

fn negate(expr: Ast, negated: bool) -> Ast {
    if negated { Ast::UnaryOp { op: UnaryOperator::Not, expr: Box::new(expr) } } else { expr }
}

fn call(name: &str, args: Vec<Ast>) -> Ast {
    let args = args.into_iter().map(|a| FunctionArg::Unnamed(FunctionArgExpr::Expr(a))).collect();
    Ast::Function(Function {
        name: ObjectName::from(vec![Ident::with_quote('`', name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    })
}

/// The value and type of a number's text.
fn parse(text: &str) -> Result<(ScalarValue, SqlType)> {
    let out_of_range =
        || Error::user(format!("the number {text} is out of range")).help("DECIMAL holds 38 digits; a DOUBLE is written 1e40");
    if text.contains(['e', 'E']) {
        let v: f64 = text.parse().map_err(|_| Error::user(format!("'{text}' is no number")))?;
        return Ok((ScalarValue::Float64(Some(v)), SqlType::Double));
    }
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    if !text.contains('.') {
        if let Ok(v) = text.parse::<i32>() {
            return Ok((ScalarValue::Int32(Some(v)), SqlType::Int));
        }
        if let Ok(v) = text.parse::<i64>() {
            return Ok((ScalarValue::Int64(Some(v)), SqlType::BigInt));
        }
    }
    let digits: i128 = format!("{whole}{part}").parse().map_err(|_| out_of_range())?;
    // Leading zeros before the point do not count, those behind it do: 0.05 is DECIMAL(3, 2) as in Flink.
    let whole_digits = whole.trim_start_matches('-');
    let whole_digits = if whole_digits.len() > 1 { whole_digits.trim_start_matches('0').len().max(1) } else { whole_digits.len() };
    let (p, s) = ((whole_digits + part.len()).max(1), part.len());
    if p > 38 {
        return Err(out_of_range());
    }
    Ok((ScalarValue::Decimal128(Some(digits), p as u8, s as i8), SqlType::Decimal(p as u8, s as i8)))
}

fn number_type(site: &Site) -> Result<SqlType> {
    let text = site.text_literal(0).ok_or_else(|| Error::internal("a number literal lost its text"))?;
    Ok(parse(text)?.1)
}

fn number(batch: &Batch) -> Result<arrow::array::ArrayRef> {
    let text = batch.text(0)?;
    Ok(parse(text.get(0).unwrap_or(""))?.0.to_array_of_size(batch.rows)?)
}
