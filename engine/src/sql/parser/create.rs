//! CREATE TABLE and CREATE VIEW; CREATE of anything else goes on elsewhere or is refused.

use datafusion::sql::sqlparser::tokenizer::Token;

use super::dialect::word;
use super::statements::Statements;
use super::{lex, strict, types};
use crate::error::{Error, Result, Span, nearest};
use crate::sql::ast::{Column, ColumnKind, CreateTable, CreateView, Name, Statement, WatermarkClause};

/// What CREATE can be followed by in Flink, but not yet here.
const LATER: &[&str] = &["CATALOG", "DATABASE", "FUNCTION", "SYSTEM", "MATERIALIZED", "CONNECTION"];

impl Statements<'_> {
    pub(super) fn create(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let or = lex::span(self.peek().span);
        let or_replace = self.accept("OR");
        if or_replace {
            self.expect("REPLACE")?;
        }
        let temporary = self.accept("TEMPORARY");
        if self.accept("TABLE") {
            if or_replace {
                return Err(Error::user("CREATE OR REPLACE TABLE is not yet supported")
                    .at(or)
                    .help("write DROP TABLE IF EXISTS before CREATE TABLE"));
            }
            return self.create_table(temporary).map(|t| Statement::CreateTable(Box::new(t)));
        }
        if self.accept("VIEW") {
            return self.create_view(temporary, or_replace).map(|v| Statement::CreateView(Box::new(v)));
        }
        if self.at("MODEL") {
            if or_replace {
                return Err(Error::user("CREATE OR REPLACE MODEL does not exist: a model has versions")
                    .at(or)
                    .help("write CREATE MODEL: it publishes the next version of that name"));
            }
            if temporary {
                return Err(Error::user("a model cannot be TEMPORARY: it is published in the registry")
                    .at(lex::span(self.last()))
                    .help("write CREATE MODEL"));
            }
            self.p.advance_token();
            return self.create_model().map(|m| Statement::CreateModel(Box::new(m)));
        }
        match word(&self.peek().token) {
            Some(w) if LATER.contains(&w.as_str()) => Err(self.later("CREATE")),
            Some(w) => Err(match nearest(&w, ["TABLE", "VIEW", "MODEL", "TEMPORARY"]) {
                Some(n) => self.expected("TABLE, VIEW or MODEL after CREATE").help(format!("did you mean {n}?")),
                None => Error::user(format!("CREATE {w} does not exist in this dialect"))
                    .at(lex::span(self.peek().span))
                    .help("there are CREATE TABLE, CREATE VIEW and CREATE MODEL"),
            }),
            None => Err(self.expected("TABLE, VIEW or MODEL after CREATE")),
        }
    }

    pub(super) fn if_not_exists(&mut self) -> Result<bool> {
        let found = self.accept("IF");
        if found {
            self.expect("NOT")?;
            self.expect("EXISTS")?;
        }
        Ok(found)
    }

    pub(super) fn comment(&mut self) -> Result<Option<String>> {
        if !self.accept("COMMENT") {
            return Ok(None);
        }
        self.string("a comment").map(Some)
    }

    fn create_view(&mut self, temporary: bool, or_replace: bool) -> Result<CreateView> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name()?;
        let columns = if self.peek().token == Token::LParen { self.names("a column")? } else { vec![] };
        let comment = self.comment()?;
        self.expect("AS")?;
        let from = self.peek().span.start;
        let query = self.query()?;
        let query_text = self.text_from(from);
        Ok(CreateView { name, temporary, or_replace, if_not_exists, columns, comment, query, query_text })
    }

    fn create_table(&mut self, temporary: bool) -> Result<CreateTable> {
        let if_not_exists = self.if_not_exists()?;
        let name = self.name()?;
        let mut t = CreateTable {
            name,
            temporary,
            if_not_exists,
            columns: vec![],
            watermark: None,
            primary_key: vec![],
            partition_keys: vec![],
            comment: None,
            options: vec![],
        };
        if self.at("WITH") || self.at("AS") || self.at("LIKE") {
            return Err(self.without_columns());
        }
        self.token(&Token::LParen, "'(' and the columns")?;
        loop {
            if self.peek().token == Token::RParen && !t.columns.is_empty() {
                return Err(self.expected_help("a column", "remove the comma before ')'"));
            }
            self.element(&mut t)?;
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.token(&Token::RParen, "',' or ')'")?;
        t.comment = self.comment()?;
        if self.at("DISTRIBUTED") {
            return Err(self.later("DISTRIBUTED"));
        }
        if self.accept("PARTITIONED") {
            self.expect("BY")?;
            t.partition_keys = self.names("a column")?;
        }
        if self.accept("WITH") {
            t.options = self.with_options()?.into_iter().map(|(key, value)| (key.value, value.value, key.span)).collect();
        }
        if self.at("LIKE") || self.at("AS") {
            return Err(self.without_columns());
        }
        for clause in ["COMMENT", "PARTITIONED"] {
            if self.at(clause) {
                return Err(self.expected_help("the end of the statement", "the order is fixed: columns, COMMENT, PARTITIONED BY, WITH"));
            }
        }
        check(&t)?;
        Ok(t)
    }

    fn without_columns(&self) -> Error {
        if self.at("LIKE") {
            self.later("CREATE TABLE …").help("write the columns and the options out")
        } else if self.at("AS") {
            self.later("CREATE TABLE …").help("write CREATE TABLE with its columns, then INSERT INTO")
        } else {
            self.expected_help("'(' and the columns", "CREATE TABLE t (name type, …) WITH ('connector' = '…')")
        }
    }

    /// `('key' = 'value', …)`, in order.
    pub(super) fn with_options(&mut self) -> Result<Vec<(Name, Name)>> {
        self.token(&Token::LParen, "'('")?;
        let mut options: Vec<(Name, Name)> = Vec::new();
        if self.p.consume_token(&Token::RParen) {
            return Ok(options);
        }
        loop {
            if matches!(self.peek().token, Token::RParen) && !options.is_empty() {
                return Err(self.expected_help("an option", "remove the comma before ')'"));
            }
            let key_at = lex::span(self.peek().span);
            let key = Name { value: self.string("an option's key")?, span: key_at };
            self.token(&Token::Eq, "'='")?;
            let value_at = lex::span(self.peek().span);
            let value = Name { value: self.string("an option's value")?, span: value_at };
            // Of an option that stands twice Flink takes the last, too.
            options.retain(|(k, _)| k.value != key.value);
            options.push((key, value));
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.token(&Token::RParen, "',' or ')'")?;
        Ok(options)
    }

    /// A column, WATERMARK or a constraint.
    fn element(&mut self, t: &mut CreateTable) -> Result<()> {
        let at = lex::span(self.peek().span);
        if self.at("WATERMARK") && !self.names_column() {
            return self.watermark(t, at);
        }
        if self.at("CONSTRAINT") || self.at("PRIMARY") || self.at("UNIQUE") {
            self.constraint_name()?;
            let at = lex::span(self.peek().span);
            self.primary()?;
            let keys = self.names("a column")?;
            self.not_enforced(at)?;
            return primary_key(t, keys, at);
        }
        let name = self.ident("a column")?;
        if let Some(first) = t.columns.iter().find(|c| c.name.value == name.value) {
            return Err(Error::user(format!(
                "the column '{}' stands twice; it is declared in line {} already",
                name.value, first.name.span.line
            ))
            .at(name.span));
        }
        if self.accept("AS") {
            let mut e = self.expr()?;
            strict::expr(&mut e)?;
            strict::no_subquery(&e)?;
            let comment = self.comment()?;
            t.columns.push(Column { name, kind: ColumnKind::Computed(Box::new(e)), comment });
            return Ok(());
        }
        let (sql_type, _) = types::take(&mut self.p)?;
        let mut nullable = true;
        if self.accept("NOT") {
            self.expect("NULL")?;
            nullable = false;
        } else {
            self.accept("NULL");
        }
        let mut kind = ColumnKind::Physical { sql_type: sql_type.clone(), nullable };
        if self.accept("METADATA") {
            let key = if self.accept("FROM") { Some(self.string("a metadata key")?) } else { None };
            let is_virtual = self.accept("VIRTUAL");
            kind = ColumnKind::Metadata { sql_type, nullable, key, is_virtual };
        }
        if self.at("CONSTRAINT") || self.at("PRIMARY") || self.at("UNIQUE") {
            self.constraint_name()?;
            let at = lex::span(self.peek().span);
            self.primary()?;
            self.not_enforced(at)?;
            primary_key(t, vec![Name { value: name.value.clone(), span: name.span }], at)?;
        }
        for (wrong, help) in [
            ("DEFAULT", "use COALESCE in the query"),
            ("CHECK", "filter in the query"),
            ("REFERENCES", "a table knows no foreign keys"),
            ("GENERATED", "write a computed column: name AS expression"),
            ("AUTO_INCREMENT", "a table does not number its rows"),
        ] {
            if self.at(wrong) {
                return Err(Error::user(format!("{wrong} does not exist in this dialect")).at(lex::span(self.peek().span)).help(help));
            }
        }
        let comment = self.comment()?;
        t.columns.push(Column { name, kind, comment });
        Ok(())
    }

    /// WATERMARK is a reserved word; behind it stands FOR.
    fn names_column(&self) -> bool {
        !super::dialect::is_word(&self.p.peek_nth_token_ref(1).token, "FOR")
    }

    fn watermark(&mut self, t: &mut CreateTable, at: Span) -> Result<()> {
        self.p.advance_token();
        self.expect("FOR")?;
        if t.watermark.is_some() {
            return Err(Error::user("a table has one watermark, this is the second").at(at).help("remove one of them"));
        }
        let column = self.ident("a column")?;
        if self.peek().token == Token::Period {
            let e = Error::user("a watermark on a field of a row is not yet supported").at(column.span);
            return Err(e.help("declare a computed column for the field first: ts AS r.ts"));
        }
        self.expect("AS")?;
        let mut expr = self.expr()?;
        strict::expr(&mut expr)?;
        strict::no_subquery(&expr)?;
        t.watermark = Some(WatermarkClause { column, expr, span: at });
        Ok(())
    }

    fn constraint_name(&mut self) -> Result<()> {
        if self.accept("CONSTRAINT") {
            self.ident("a constraint's name")?;
        }
        Ok(())
    }

    fn primary(&mut self) -> Result<()> {
        if self.at("UNIQUE") {
            return Err(Error::user("UNIQUE is not supported")
                .at(lex::span(self.peek().span))
                .help("a table has a PRIMARY KEY (…) NOT ENFORCED only"));
        }
        self.expect("PRIMARY")?;
        self.expect("KEY")
    }

    fn not_enforced(&mut self, at: Span) -> Result<()> {
        if self.accept("NOT") {
            return self.expect("ENFORCED");
        }
        let e = Error::user("a primary key is not checked here, and must say so").at(at);
        Err(e.help("write PRIMARY KEY (…) NOT ENFORCED"))
    }
}

fn primary_key(t: &mut CreateTable, keys: Vec<Name>, at: Span) -> Result<()> {
    if !t.primary_key.is_empty() {
        return Err(Error::user("a table has one primary key, this is the second")
            .at(at)
            .help("name all its columns in one: PRIMARY KEY (a, b) NOT ENFORCED"));
    }
    t.primary_key = keys;
    Ok(())
}

/// What can only be said once all columns are known.
fn check(t: &CreateTable) -> Result<()> {
    let unknown = |what: &str, name: &Name| {
        let e = Error::user(format!("{what} '{}' is not a column of the table '{}'", name.value, t.name.value)).at(name.span);
        match nearest(&name.value, t.columns.iter().map(|c| c.name.value.as_str())) {
            Some(n) => e.help(format!("did you mean '{n}'? (names compare with case)")),
            None => e,
        }
    };
    let find = |name: &Name| t.columns.iter().find(|c| c.name.value == name.value);
    if t.columns.is_empty() {
        return Err(Error::user(format!("the table '{}' has no columns", t.name.value)).at(t.name.span));
    }
    for key in &t.primary_key {
        match find(key) {
            None => return Err(unknown("the primary key", key)),
            Some(Column { kind: ColumnKind::Physical { .. }, .. }) => {}
            Some(_) => return Err(Error::user(format!("the primary key '{}' is not a physical column", key.value)).at(key.span)),
        }
    }
    for key in &t.partition_keys {
        match find(key) {
            None => return Err(unknown("the partition column", key)),
            Some(Column { kind: ColumnKind::Computed(_), .. }) => {
                return Err(Error::user(format!("the partition column '{}' is computed", key.value))
                    .at(key.span)
                    .help("partition by a column with a type"));
            }
            Some(_) => {}
        }
    }
    if let Some(w) = &t.watermark
        && find(&w.column).is_none()
    {
        return Err(unknown("the watermark's", &w.column));
    }
    Ok(())
}
