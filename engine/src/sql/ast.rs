//! Statements of a SQL file, as the parser leaves them.
//!
//! Queries and expressions are sqlparser's own AST; statements are ours, because Flink's DDL is not
//! sqlparser's. After the parser's strict pass an expression holds no bare cast: `CAST(e AS t)` is the
//! call `"$cast"(e, '<type>')`, `TRY_CAST` is `"$try_cast"`, `FLOOR(x TO unit)` and `CEIL` are
//! `"$floor_to"(x, 'UNIT')` and `"$ceil_to"`, `TIMESTAMPDIFF(unit, a, b)` is `"$timestampdiff"('UNIT', a, b)`,
//! `TIMESTAMPADD` likewise, `EXTRACT(unit FROM x)` and `YEAR(x)`, `HOUR(x)`, … are `"$extract"('UNIT', x)`.

use datafusion::sql::sqlparser::ast::{Expr, Query};

use crate::error::Span;
use crate::stream::SqlType;

/// One statement with its place.
#[derive(Debug, Clone)]
pub struct Parsed {
    /// What it says.
    pub statement: Statement,
    /// Where it starts.
    pub span: Span,
    /// Its text, comments included, without the semicolon.
    pub text: String,
}

/// A name with its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// The name, unquoted. Qualified names keep their last part only; a catalog or database other than
    /// `default_catalog`.`default_database` is refused by the parser.
    pub value: String,
    /// Where it stands.
    pub span: Span,
}

/// Everything that can stand in a file.
#[derive(Debug, Clone)]
pub enum Statement {
    /// `SET 'k' = 'v'`
    Set {
        /// The key.
        key: String,
        /// The value.
        value: String,
    },
    /// `SET` alone: show all settings.
    ShowSettings,
    /// `RESET ['k']`
    Reset {
        /// The key; `None` resets all.
        key: Option<String>,
    },
    /// `CREATE TABLE`
    CreateTable(Box<CreateTable>),
    /// `CREATE VIEW`
    CreateView(Box<CreateView>),
    /// `CREATE MODEL … AS`
    CreateModel(Box<CreateModel>),
    /// `INSERT INTO`
    Insert(Box<Insert>),
    /// `EXECUTE STATEMENT SET BEGIN … END`
    StatementSet(Vec<(Insert, Span)>),
    /// `SELECT`, `WITH`, `VALUES`
    Query(Box<Query>),
    /// `EXPLAIN`
    Explain(Box<Parsed>),
    /// `SHOW TABLES`
    ShowTables,
    /// `SHOW VIEWS`
    ShowViews,
    /// `SHOW MODELS`
    ShowModels,
    /// `SHOW CREATE TABLE t`
    ShowCreateTable(Name),
    /// `SHOW CREATE VIEW v`
    ShowCreateView(Name),
    /// `DESCRIBE t`
    Describe(Name),
    /// `DESCRIBE MODEL m`
    DescribeModel(Name),
    /// `DROP [TEMPORARY] TABLE|VIEW [IF EXISTS] t`
    Drop {
        /// `VIEW` rather than `TABLE`.
        view: bool,
        /// What to drop.
        name: Name,
        /// `IF EXISTS`.
        if_exists: bool,
    },
}

/// `CREATE TABLE`.
#[derive(Debug, Clone)]
pub struct CreateTable {
    /// Name.
    pub name: Name,
    /// `TEMPORARY`.
    pub temporary: bool,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// `WATERMARK FOR c AS e`.
    pub watermark: Option<WatermarkClause>,
    /// `PRIMARY KEY (…) NOT ENFORCED`.
    pub primary_key: Vec<Name>,
    /// `PARTITIONED BY (…)`.
    pub partition_keys: Vec<Name>,
    /// `COMMENT`.
    pub comment: Option<String>,
    /// `WITH`, in order; the span is the key's.
    pub options: Vec<(String, String, Span)>,
}

/// A column of CREATE TABLE.
#[derive(Debug, Clone)]
pub struct Column {
    /// Name.
    pub name: Name,
    /// What kind of column.
    pub kind: ColumnKind,
    /// `COMMENT`.
    pub comment: Option<String>,
}

/// The three kinds of columns.
#[derive(Debug, Clone)]
pub enum ColumnKind {
    /// `c type [NOT NULL]`
    Physical {
        /// The type.
        sql_type: SqlType,
        /// No NOT NULL.
        nullable: bool,
    },
    /// `c type METADATA [FROM 'key'] [VIRTUAL]`
    Metadata {
        /// The type.
        sql_type: SqlType,
        /// No NOT NULL.
        nullable: bool,
        /// FROM.
        key: Option<String>,
        /// VIRTUAL.
        is_virtual: bool,
    },
    /// `c AS expr`
    Computed(Box<Expr>),
}

/// `WATERMARK FOR column AS expr`.
#[derive(Debug, Clone)]
pub struct WatermarkClause {
    /// The rowtime column.
    pub column: Name,
    /// The expression.
    pub expr: Expr,
    /// Where the clause starts.
    pub span: Span,
}

/// `CREATE VIEW`.
#[derive(Debug, Clone)]
pub struct CreateView {
    /// Name.
    pub name: Name,
    /// `TEMPORARY`.
    pub temporary: bool,
    /// `OR REPLACE`.
    pub or_replace: bool,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// `(a, b)`.
    pub columns: Vec<Name>,
    /// `COMMENT`.
    pub comment: Option<String>,
    /// The query.
    pub query: Box<Query>,
    /// The query's text.
    pub query_text: String,
}

/// `CREATE MODEL … AS`.
#[derive(Debug, Clone)]
pub struct CreateModel {
    /// Name.
    pub name: Name,
    /// `IF NOT EXISTS`.
    pub if_not_exists: bool,
    /// `COMMENT`.
    pub comment: Option<String>,
    /// `WITH`, in order: key and value.
    pub options: Vec<(Name, Name)>,
    /// What it is trained on.
    pub query: Box<Query>,
}

/// `INSERT INTO`.
#[derive(Debug, Clone)]
pub struct Insert {
    /// The sink.
    pub table: Name,
    /// `PARTITION (k = literal, …)`.
    pub partition: Vec<(Name, Expr)>,
    /// `(a, b)`; empty: all columns, by position.
    pub columns: Vec<Name>,
    /// The query or VALUES.
    pub query: Box<Query>,
}
