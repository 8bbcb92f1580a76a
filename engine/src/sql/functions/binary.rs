//! Operators: which operand types they take and what they give, as in Flink.
//!
//! Where DataFusion's own operator computes the same value it is used, so that its optimizer sees through
//! it; DECIMAL arithmetic and everything that needs a cast of ours becomes a call.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field};
use datafusion::common::{DFSchema, TableReference};
use datafusion::error::Result as DfResult;
use datafusion::logical_expr::expr::{BinaryExpr, ScalarFunction};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, RawFieldAccessExpr};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable, GetFieldAccess, Operator, ScalarUDF, lit};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::literals::type_literals;
use super::scalar::{is_integer, is_time};
use crate::error::{Error, Result};
use crate::stream::SqlType;

/// Plans operators, field access and constructors.
#[derive(Debug)]
pub(super) struct Planner {
    /// The functions that operators become.
    pub functions: Vec<Arc<ScalarUDF>>,
}

impl Planner {
    fn call(&self, name: &str, args: Vec<Expr>) -> Expr {
        let f = self.functions.iter().find(|f| f.name() == name).expect("the planner calls registered functions only");
        Expr::ScalarFunction(ScalarFunction::new_udf(f.clone(), args))
    }

    fn cast(&self, e: Expr, t: &SqlType) -> Expr {
        self.call("$cast", vec![e, lit(t.to_string())])
    }

    /// Numbers widen without loss, so DataFusion's cast does.
    fn widen(&self, e: Expr, from: &SqlType, to: &SqlType) -> Expr {
        if from == to {
            return e;
        }
        if let Expr::Literal(value, _) = &e
            && let Ok(value) = value.cast_to(&to.arrow())
        {
            return Expr::Literal(value, None);
        }
        Expr::Cast(Cast::new(Box::new(e), to.arrow()))
    }

    fn arithmetic(&self, op: Operator, l: Side, r: Side) -> Result<Expr> {
        let sign = op.to_string();
        if l.interval || r.interval {
            let fits = match op {
                Operator::Plus => (l.interval || is_time(&l.sql)) && (r.interval || is_time(&r.sql)),
                Operator::Minus => r.interval && (l.interval || is_time(&l.sql)),
                Operator::Multiply => (l.interval && is_integer(&r.sql)) || (r.interval && is_integer(&l.sql)),
                _ => false,
            };
            if !fits {
                return Err(Error::user(format!("'{sign}' does not take {} and {}", l.name(), r.name())));
            }
            // TIME has no operator of DataFusion's: it goes round the clock through a timestamp.
            if matches!(l.sql, SqlType::Time(_)) && !l.interval {
                return Ok(
                    self.call("$time_plus", vec![l.expr, if op == Operator::Minus { Expr::Negative(Box::new(r.expr)) } else { r.expr }])
                );
            }
            let t = if l.interval { r.sql } else { l.sql };
            let e = binary(l.expr, op, r.expr);
            return Ok(match t {
                // Arrow has units for three precisions only: the others are written on the result.
                SqlType::Timestamp(p) | SqlType::TimestampLtz(p) if !matches!(p, 3 | 6 | 9) => self.cast(e, &t),
                _ => e,
            });
        }
        if is_time(&l.sql) && is_time(&r.sql) && !l.null && !r.null {
            let e = Error::user(format!("'{sign}' does not take {} and {}", l.sql, r.sql));
            return Err(if op == Operator::Minus { e.help("write TIMESTAMPDIFF(SECOND, a, b)") } else { e });
        }
        let (lt, rt) = match (l.null, r.null) {
            (true, true) => (SqlType::Int, SqlType::Int),
            (true, false) => (r.sql.clone(), r.sql.clone()),
            (false, true) => (l.sql.clone(), l.sql.clone()),
            (false, false) => (l.sql.clone(), r.sql.clone()),
        };
        for t in [&lt, &rt] {
            if !t.is_numeric() {
                let e = Error::user(format!("'{sign}' does not take {lt} and {rt}"));
                return Err(if t.is_text() {
                    e.help("convert the text first: CAST(x AS INT), CAST(x AS DECIMAL(p, s)), or '||' to concatenate")
                } else {
                    e
                });
            }
        }
        let (le, re) = (self.typed_null(l, &lt), self.typed_null(r, &rt));
        let float = |t: &SqlType| matches!(t, SqlType::Float | SqlType::Double);
        if float(&lt) || float(&rt) {
            if op == Operator::Modulo {
                return Err(Error::user(format!("'%' does not take {lt} and {rt}")).help("cast both sides to DECIMAL(p, s)"));
            }
            // Of two floating types the first decides, as in Flink; a DECIMAL makes it a DOUBLE.
            let t = match (&lt, &rt) {
                (SqlType::Decimal(..), _) | (_, SqlType::Decimal(..)) => SqlType::Double,
                (SqlType::Float | SqlType::Double, _) => lt.clone(),
                _ => rt.clone(),
            };
            return Ok(binary(self.widen(le, &lt, &t), op, self.widen(re, &rt, &t)));
        }
        if is_integer(&lt) && is_integer(&rt) {
            let t = widest_integer(&lt, &rt);
            let e = binary(self.widen(le, &lt, &t), op, self.widen(re, &rt, &t));
            // The remainder has the divisor's type, and fits it.
            return Ok(if op == Operator::Modulo { self.widen(e, &t, &rt) } else { e });
        }
        let name = match op {
            Operator::Plus => "$plus",
            Operator::Minus => "$minus",
            Operator::Multiply => "$times",
            Operator::Divide => "$divide",
            _ => "$mod",
        };
        Ok(self.call(name, vec![le, re]))
    }

    fn typed_null(&self, side: Side, t: &SqlType) -> Expr {
        if side.null { self.widen(side.expr, &SqlType::Row(Vec::new()), t) } else { side.expr }
    }

    fn comparison(&self, op: Operator, l: Side, r: Side) -> Result<Expr> {
        if l.null || r.null {
            return Ok(binary(l.expr, op, r.expr));
        }
        let (lt, rt) = (&l.sql, &r.sql);
        if l.interval || r.interval {
            return Ok(binary(l.expr, op, r.expr));
        }
        if is_time(lt) && rt.is_text() {
            let right = self.cast(r.expr, lt);
            return Ok(binary(l.expr, op, right));
        }
        if is_time(rt) && lt.is_text() {
            let left = self.cast(l.expr, rt);
            return Ok(binary(left, op, r.expr));
        }
        if is_time(lt) && is_time(rt) && std::mem::discriminant(lt) != std::mem::discriminant(rt) {
            if matches!(lt, SqlType::Time(_)) || matches!(rt, SqlType::Time(_)) {
                return Err(refused(op, &l, &r));
            }
            // The finer kind decides; a wall clock is read in the session's zone.
            let t = match (lt, rt) {
                (SqlType::TimestampLtz(p), other) | (other, SqlType::TimestampLtz(p)) => SqlType::TimestampLtz((*p).max(fraction(other))),
                (a, b) => SqlType::Timestamp(fraction(a).max(fraction(b))),
            };
            let cast = |side: &Side| if side.sql == t { side.expr.clone() } else { self.cast(side.expr.clone(), &t) };
            return Ok(binary(cast(&l), op, cast(&r)));
        }
        if comparable(lt, rt) {
            return Ok(binary(l.expr, op, r.expr));
        }
        Err(refused(op, &l, &r))
    }
}

/// Whether values of the two types can be compared.
pub(super) fn comparable(a: &SqlType, b: &SqlType) -> bool {
    let bytes = |t: &SqlType| matches!(t, SqlType::Binary(_) | SqlType::VarBinary(_));
    (a.is_text() && b.is_text())
        || (a.is_numeric() && b.is_numeric())
        || (bytes(a) && bytes(b))
        || std::mem::discriminant(a) == std::mem::discriminant(b)
}

fn fraction(t: &SqlType) -> u8 {
    match t {
        SqlType::Timestamp(p) | SqlType::TimestampLtz(p) | SqlType::Time(p) => *p,
        _ => 0,
    }
}

fn refused(op: Operator, l: &Side, r: &Side) -> Error {
    let e = Error::user(format!("'{op}' does not compare {} with {}", l.name(), r.name()));
    match (l.sql.is_text(), r.sql.is_text()) {
        (true, false) => e.help(format!("convert the text: CAST(x AS {})", r.sql)),
        (false, true) => e.help(format!("convert the text: CAST(x AS {})", l.sql)),
        _ => e,
    }
}

fn widest_integer(a: &SqlType, b: &SqlType) -> SqlType {
    let rank = |t: &SqlType| match t {
        SqlType::TinyInt => 0,
        SqlType::SmallInt => 1,
        SqlType::Int => 2,
        _ => 3,
    };
    if rank(a) >= rank(b) { a.clone() } else { b.clone() }
}

fn binary(l: Expr, op: Operator, r: Expr) -> Expr {
    Expr::BinaryExpr(BinaryExpr::new(Box::new(l), op, Box::new(r)))
}

struct Side {
    expr: Expr,
    sql: SqlType,
    interval: bool,
    null: bool,
}

impl Side {
    fn new(expr: Expr, schema: &DFSchema) -> DfResult<Self> {
        let expr = type_literals(expr);
        let (_, field) = expr.to_field(schema)?;
        let interval = matches!(field.data_type(), DataType::Interval(_) | DataType::Duration(_));
        Ok(Self { sql: SqlType::of(&field), interval, null: *field.data_type() == DataType::Null, expr })
    }

    fn name(&self) -> String {
        if self.interval { "INTERVAL".to_string() } else { self.sql.to_string() }
    }
}

impl ExprPlanner for Planner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator as B;
        let op = match expr.op {
            B::Plus => Operator::Plus,
            B::Minus => Operator::Minus,
            B::Multiply => Operator::Multiply,
            B::Divide => Operator::Divide,
            B::Modulo => Operator::Modulo,
            B::Eq => Operator::Eq,
            B::NotEq => Operator::NotEq,
            B::Lt => Operator::Lt,
            B::LtEq => Operator::LtEq,
            B::Gt => Operator::Gt,
            B::GtEq => Operator::GtEq,
            B::StringConcat => Operator::StringConcat,
            B::And | B::Or => return Ok(PlannerResult::Original(expr)),
            other => {
                let e = Error::user(format!("the operator '{other}' does not exist in this dialect"));
                return Err(e.into());
            }
        };
        let (l, r) = (Side::new(expr.left, schema)?, Side::new(expr.right, schema)?);
        let planned = match op {
            Operator::StringConcat => {
                if [&l, &r].iter().any(|s| !s.null && (s.interval || !s.sql.is_text())) {
                    let e = Error::user(format!("'||' does not take {} and {}", l.name(), r.name()));
                    return Err(e.help("convert to text first: CAST(x AS STRING)").into());
                }
                binary(l.expr, op, r.expr)
            }
            op if op.is_numerical_operators() => self.arithmetic(op, l, r)?,
            op => self.comparison(op, l, r)?,
        };
        Ok(PlannerResult::Planned(planned))
    }

    fn plan_field_access(&self, expr: RawFieldAccessExpr, schema: &DFSchema) -> DfResult<PlannerResult<RawFieldAccessExpr>> {
        let (_, field) = expr.expr.to_field(schema)?;
        let planned = match (SqlType::of(&field), expr.field_access.clone()) {
            (SqlType::Row(_), GetFieldAccess::NamedStructField { name }) => self.call("$field", vec![expr.expr, Expr::Literal(name, None)]),
            (SqlType::Map(..), GetFieldAccess::NamedStructField { name }) => self.call("$item", vec![expr.expr, Expr::Literal(name, None)]),
            (SqlType::Map(..) | SqlType::Array(..), GetFieldAccess::ListIndex { key }) => {
                self.call("$item", vec![expr.expr, type_literals(*key)])
            }
            (t, _) => {
                let e = Error::user(format!("'[…]' takes an ARRAY or a MAP, found {t}"));
                return Err(e.help("array[1] is the first element, map['key'] a value, row.field a field").into());
            }
        };
        Ok(PlannerResult::Planned(planned))
    }

    fn plan_compound_identifier(
        &self,
        field: &Field,
        qualifier: Option<&TableReference>,
        nested_names: &[String],
    ) -> DfResult<PlannerResult<Vec<Expr>>> {
        let column = Expr::Column((qualifier, &Arc::new(field.clone())).into());
        let path = nested_names.iter().fold(column, |e, name| self.call("$field", vec![e, lit(name.as_str())]));
        Ok(PlannerResult::Planned(path))
    }

    fn plan_array_literal(&self, exprs: Vec<Expr>, _: &DFSchema) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(self.call("$array", exprs.into_iter().map(type_literals).collect())))
    }

    fn plan_struct_literal(&self, args: Vec<Expr>, named: bool) -> DfResult<PlannerResult<Vec<Expr>>> {
        if named {
            return Ok(PlannerResult::Original(args));
        }
        Ok(PlannerResult::Planned(self.call("$row", args)))
    }

    fn plan_make_map(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(self.call("$map", args)))
    }

    fn plan_position(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(self.call("position", args)))
    }

    fn plan_substring(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(self.call("substring", args)))
    }

    fn plan_overlay(&self, args: Vec<Expr>) -> DfResult<PlannerResult<Vec<Expr>>> {
        Ok(PlannerResult::Planned(self.call("overlay", args)))
    }
}
