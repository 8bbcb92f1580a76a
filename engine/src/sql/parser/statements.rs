//! Statements: which one it is, and its parts.

use datafusion::sql::sqlparser::ast::{Expr, Query};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Span as TokenSpan, Token, TokenWithSpan};

use super::dialect::{FlinkDialect, is_word, reserved, reserved_word, word};
use super::lex::{self, Source};
use super::strict;
use crate::error::{Error, Result, Span, nearest};
use crate::sql::ast::{Insert, Name, Parsed, Statement};

/// The catalog and the database that every table is in.
pub(super) const CATALOG: &str = "default_catalog";
/// See [`CATALOG`].
pub(super) const DATABASE: &str = "default_database";

/// Words that start a statement of this version.
pub(super) const STARTS: &[&str] = &[
    "BEGIN", "CREATE", "DESC", "DESCRIBE", "DROP", "EXECUTE", "EXPLAIN", "INSERT", "RESET", "SELECT", "SET", "SHOW", "USE", "VALUES",
    "WITH",
];
/// Words that start a statement of Flink's that this version does not have.
const LATER: &[&str] =
    &["ADD", "ALTER", "ANALYZE", "CALL", "COMPILE", "DELETE", "LOAD", "REMOVE", "STOP", "TRUNCATE", "UNLOAD", "UPDATE", "UPSERT"];
/// Reads statements one after the other.
pub(super) struct Statements<'a> {
    pub(super) p: Parser<'a>,
    pub(super) dialect: &'a FlinkDialect,
    source: Source<'a>,
}

impl<'a> Statements<'a> {
    pub(super) fn new(text: &'a str, dialect: &'a FlinkDialect) -> Result<Self> {
        let tokens = lex::tokens(text)?;
        Ok(Self { p: Parser::new(dialect).with_tokens_with_locations(tokens), dialect, source: Source::new(text) })
    }

    pub(super) fn all(&mut self) -> Result<Vec<Parsed>> {
        let mut out = Vec::new();
        loop {
            while self.p.consume_token(&Token::SemiColon) {}
            if self.peek().token == Token::EOF {
                return Ok(out);
            }
            if self.use_default()? {
                continue;
            }
            out.push(self.parsed()?);
            self.end("the statement")?;
        }
    }

    fn parsed(&mut self) -> Result<Parsed> {
        let first = self.peek().span;
        let statement = self.statement()?;
        let last = self.last().end;
        Ok(Parsed { statement, span: lex::span(first), text: self.source.slice(first.start, last).to_string() })
    }

    fn statement(&mut self) -> Result<Statement> {
        let first = self.peek().clone();
        if first.token == Token::LParen {
            return self.query().map(Statement::Query);
        }
        let Some(start) = word(&first.token) else {
            return Err(self.expected("a statement"));
        };
        match start.as_str() {
            "SELECT" | "WITH" | "VALUES" => self.query().map(Statement::Query),
            "SET" => self.set(),
            "RESET" => self.reset(),
            "CREATE" => self.create(),
            "INSERT" => self.insert().map(|i| Statement::Insert(Box::new(i))),
            "EXECUTE" | "BEGIN" | "STATEMENT" => self.statement_set(&start),
            "EXPLAIN" => self.explain(),
            "SHOW" => self.show(),
            "DESCRIBE" | "DESC" => {
                self.p.advance_token();
                if self.at("EXTENDED") {
                    return Err(self.later("DESCRIBE EXTENDED"));
                }
                let names_model = matches!(self.p.peek_nth_token_ref(1).token, Token::Word(_));
                if names_model && self.accept("MODEL") {
                    return self.name().map(Statement::DescribeModel);
                }
                self.name().map(Statement::Describe)
            }
            "DROP" => self.drop(),
            later if LATER.contains(&later) => Err(self.later(later)),
            other => {
                let e = Error::user(format!("'{other}' does not start a statement")).at(lex::span(first.span));
                Err(match nearest(other, STARTS.iter().copied()) {
                    Some(n) => e.help(format!("did you mean {n}?")),
                    None => e.help(format!("a statement starts with {}", STARTS.join(", "))),
                })
            }
        }
    }

    // ---- small statements

    /// `SET 'k' = 'v'`; Flink's shell takes both bare, too.
    fn set(&mut self) -> Result<Statement> {
        let start = self.p.next_token().span.end;
        if self.ends() {
            return Ok(Statement::ShowSettings);
        }
        if let (Token::SingleQuotedString(key), Token::Eq) = (&self.peek().token, &self.p.peek_nth_token_ref(1).token) {
            let key = key.clone();
            self.p.advance_token();
            self.p.advance_token();
            let value = if matches!(self.peek().token, Token::SingleQuotedString(_)) { self.string("a value")? } else { self.bare()? };
            return Ok(Statement::Set { key, value });
        }
        let at = self.peek().span;
        let text = self.bare_from(start)?;
        let Some((key, value)) = text.split_once('=').map(|(k, v)| (k.trim(), v.trim())) else {
            return Err(Error::user("SET needs a key and a value").at(lex::span(at)).help("write SET 'key' = 'value'"));
        };
        let unquoted = value.strip_prefix('\'').and_then(|v| v.strip_suffix('\''));
        let value = unquoted.map_or_else(|| value.to_string(), |v| v.replace("''", "'"));
        if key.is_empty()
            || key.contains(['\'', ' ', '\n'])
            || unquoted.is_none() && (value.is_empty() || value.contains(char::is_whitespace))
        {
            return Err(Error::user("SET needs a key and a value").at(lex::span(at)).help("write SET 'key' = 'value'"));
        }
        Ok(Statement::Set { key: key.to_string(), value })
    }

    fn reset(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let key = match &self.peek().token {
            _ if self.ends() => None,
            Token::SingleQuotedString(_) => Some(self.string("a key")?),
            _ => Some(self.bare()?),
        };
        Ok(Statement::Reset { key })
    }

    /// The text up to the end of the statement.
    fn bare(&mut self) -> Result<String> {
        let from = self.peek().span.start;
        let at = self.peek().span;
        let text = self.bare_from(from)?;
        if text.is_empty() || text.contains(char::is_whitespace) {
            return Err(Error::user("a text with blanks must stand in quotes").at(lex::span(at)).help("write SET 'key' = 'value'"));
        }
        Ok(text)
    }

    fn bare_from(&mut self, from: Location) -> Result<String> {
        while !self.ends() {
            self.p.advance_token();
        }
        Ok(self.source.slice(from, self.last().end).trim().to_string())
    }

    /// `USE` of what is in use anyway.
    fn use_default(&mut self) -> Result<bool> {
        if !self.at("USE") {
            return Ok(false);
        }
        let start = self.p.next_token().span;
        if self.at("MODULES") {
            return Err(self.later("USE MODULES"));
        }
        let catalog = self.accept("CATALOG");
        let mut parts = vec![self.ident("a name")?];
        while self.p.consume_token(&Token::Period) {
            parts.push(self.ident("a name")?);
        }
        let names: Vec<&str> = parts.iter().map(|n| n.value.as_str()).collect();
        let known = if catalog { names == [CATALOG] } else { names == [DATABASE] || names == [CATALOG, DATABASE] };
        if !known {
            let what = if catalog { "catalog" } else { "database" };
            return Err(Error::user(format!(
                "the {what} {} does not exist: other catalogs and databases are not yet supported",
                names.join(".")
            ))
            .at(lex::span(start))
            .help("leave the statement out"));
        }
        self.end("the statement")?;
        Ok(true)
    }

    fn show(&mut self) -> Result<Statement> {
        self.p.advance_token();
        if self.accept("TABLES") {
            return self.only("SHOW TABLES", Statement::ShowTables);
        }
        if self.accept("VIEWS") {
            return self.only("SHOW VIEWS", Statement::ShowViews);
        }
        if self.accept("MODELS") {
            return self.only("SHOW MODELS", Statement::ShowModels);
        }
        if self.accept("CREATE") {
            if self.accept("TABLE") {
                return self.name().map(Statement::ShowCreateTable);
            }
            if self.accept("VIEW") {
                return self.name().map(Statement::ShowCreateView);
            }
            return Err(self.later("SHOW CREATE"));
        }
        let what = word(&self.peek().token).unwrap_or_default();
        const KNOWN: &[&str] = &["TABLES", "VIEWS", "MODELS", "CREATE"];
        Err(match nearest(&what, KNOWN.iter().copied()) {
            Some(n) => self.expected("TABLES, VIEWS, MODELS, CREATE TABLE or CREATE VIEW").help(format!("did you mean SHOW {n}?")),
            None => self.later("SHOW"),
        })
    }

    fn only(&self, what: &str, statement: Statement) -> Result<Statement> {
        if self.ends() {
            Ok(statement)
        } else {
            Err(self.expected_help("the end of the statement", &format!("write {what} alone: filters are not yet supported")))
        }
    }

    fn drop(&mut self) -> Result<Statement> {
        self.p.advance_token();
        let temporary = self.accept("TEMPORARY");
        let view = if self.accept("VIEW") {
            true
        } else if self.accept("TABLE") {
            false
        } else {
            return Err(match word(&self.peek().token).as_deref() {
                Some("MODEL") => Error::user("DROP MODEL is not supported: a job may have pinned a version of the model")
                    .at(lex::span(self.peek().span))
                    .help("move the alias with velosql models alias or rollback; to delete a model for good, delete its folder in the registry"),
                Some("SYSTEM" | "FUNCTION" | "CATALOG" | "DATABASE" | "MATERIALIZED" | "CONNECTION") => {
                    self.later(if temporary { "DROP TEMPORARY" } else { "DROP" })
                }
                _ => self.expected("TABLE or VIEW"),
            });
        };
        let if_exists = self.accept("IF");
        if if_exists {
            self.expect("EXISTS")?;
        }
        Ok(Statement::Drop { view, name: self.name()?, if_exists })
    }

    fn explain(&mut self) -> Result<Statement> {
        self.p.advance_token();
        const DETAILS: &[&str] = &["ESTIMATED_COST", "CHANGELOG_MODE", "JSON_EXECUTION_PLAN", "PLAN_ADVICE"];
        if self.accept("PLAN") {
            self.expect("FOR")?;
        } else {
            while DETAILS.iter().any(|d| self.at(d)) {
                self.p.advance_token();
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
        }
        let known =
            ["SELECT", "WITH", "VALUES", "INSERT", "EXECUTE", "STATEMENT"].iter().any(|w| self.at(w)) || self.peek().token == Token::LParen;
        if !known {
            return Err(self.expected("a query, INSERT INTO or EXECUTE STATEMENT SET"));
        }
        Ok(Statement::Explain(Box::new(self.parsed()?)))
    }

    // ---- INSERT

    /// `EXECUTE STATEMENT SET BEGIN … END`, and `BEGIN STATEMENT SET; … END`.
    fn statement_set(&mut self, start: &str) -> Result<Statement> {
        let first = self.p.next_token();
        if start == "EXECUTE" && !self.at("STATEMENT") {
            return Err(if self.at("PLAN") { self.later("EXECUTE PLAN") } else { self.expected("STATEMENT SET after EXECUTE") });
        }
        if start == "BEGIN" && !self.at("STATEMENT") {
            return Err(Error::user("BEGIN starts a statement set here, not a transaction")
                .at(lex::span(first.span))
                .help("write EXECUTE STATEMENT SET BEGIN … END;"));
        }
        if start != "STATEMENT" {
            self.expect("STATEMENT")?;
        }
        self.expect("SET")?;
        if start == "BEGIN" {
            self.token(&Token::SemiColon, "';' after BEGIN STATEMENT SET")?
        } else {
            self.expect("BEGIN")?
        }
        let mut inserts = Vec::new();
        while !self.at("END") {
            if !self.at("INSERT") {
                return Err(self.expected_help("INSERT INTO or END", "a statement set holds INSERT INTO statements, each ended with ;"));
            }
            let at = lex::span(self.peek().span);
            inserts.push((self.insert()?, at));
            self.token(&Token::SemiColon, "';' after the INSERT")?;
        }
        let end = self.p.next_token().span;
        if inserts.is_empty() {
            return Err(Error::user("the statement set is empty")
                .at(lex::span(end))
                .help("put INSERT INTO statements between BEGIN and END"));
        }
        Ok(Statement::StatementSet(inserts))
    }

    fn insert(&mut self) -> Result<Insert> {
        self.p.advance_token();
        if self.at("OVERWRITE") {
            let e = Error::user("INSERT OVERWRITE works on batches only").at(lex::span(self.peek().span));
            return Err(e.help("write INSERT INTO"));
        }
        self.expect("INTO")?;
        let table = self.name()?;
        let mut partition: Vec<(Name, Expr)> = Vec::new();
        if self.accept("PARTITION") {
            self.token(&Token::LParen, "'('")?;
            loop {
                let key = self.ident("a partition column")?;
                if partition.iter().any(|(k, _)| k.value == key.value) {
                    return Err(Error::user(format!("the partition column '{}' stands twice", key.value)).at(key.span));
                }
                if self.peek().token != Token::Eq {
                    return Err(self.expected_help("'='", "a partition column needs a literal: PARTITION (day = '2024-11-09')"));
                }
                self.p.advance_token();
                let at = self.peek().span;
                let mut value = self.expr()?;
                strict::expr(&mut value)?;
                if !matches!(value, Expr::Value(_) | Expr::UnaryOp { .. } | Expr::Function(_)) {
                    return Err(Error::user("a partition column needs a literal")
                        .at(lex::span(at))
                        .help("write the value itself, or put the column into the query"));
                }
                partition.push((key, value));
                if !self.p.consume_token(&Token::Comma) {
                    break;
                }
            }
            self.token(&Token::RParen, "',' or ')'")?;
        }
        let mut columns = Vec::new();
        let inner = &self.p.peek_nth_token_ref(1).token;
        let query = ["SELECT", "WITH", "VALUES"].iter().any(|w| is_word(inner, w)) || *inner == Token::LParen;
        if self.peek().token == Token::LParen && !query {
            columns = self.names("a column")?;
        }
        let query = self.query()?;
        if self.accept("ON") {
            return Err(self.later("ON"));
        }
        Ok(Insert { table, partition, columns, query })
    }

    // ---- parts

    /// An expression, not yet checked.
    pub(super) fn expr(&mut self) -> Result<Expr> {
        self.p.parse_expr().map_err(|e| self.error(e))
    }

    /// A query, checked.
    pub(super) fn query(&mut self) -> Result<Box<Query>> {
        if self.at("TABLE") {
            return Err(self.later("TABLE as a query").help("write SELECT * FROM the table"));
        }
        let mut query = self.p.parse_query().map_err(|e| self.error(e))?;
        strict::query(&mut query)?;
        Ok(query)
    }

    /// The next token.
    pub(super) fn peek(&self) -> &TokenWithSpan {
        self.p.peek_token_ref()
    }

    /// The place of the token taken last.
    pub(super) fn last(&self) -> TokenSpan {
        self.p.token_at(self.p.index().saturating_sub(1)).span
    }

    /// The text from a place to the token taken last.
    pub(super) fn text_from(&self, from: Location) -> String {
        self.source.slice(from, self.last().end).to_string()
    }

    pub(super) fn ends(&self) -> bool {
        matches!(self.peek().token, Token::EOF | Token::SemiColon)
    }

    pub(super) fn at(&self, wanted: &str) -> bool {
        is_word(&self.peek().token, wanted)
    }

    pub(super) fn accept(&mut self, wanted: &str) -> bool {
        let found = self.at(wanted);
        if found {
            self.p.advance_token();
        }
        found
    }

    pub(super) fn expect(&mut self, wanted: &str) -> Result<()> {
        if self.accept(wanted) { Ok(()) } else { Err(self.expected(wanted)) }
    }

    pub(super) fn token(&mut self, wanted: &Token, what: &str) -> Result<()> {
        if self.p.consume_token(wanted) { Ok(()) } else { Err(self.expected(what)) }
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String> {
        match &self.peek().token {
            Token::SingleQuotedString(s) => {
                let s = s.clone();
                self.p.advance_token();
                Ok(s)
            }
            _ => Err(self.expected_help(&format!("{what} in single quotes"), "text stands in single quotes: 'text'")),
        }
    }

    pub(super) fn ident(&mut self, what: &str) -> Result<Name> {
        let t = self.peek().clone();
        if reserved_word(&t.token).is_some() {
            return Err(reserved(&t));
        }
        let Token::Word(w) = t.token else { return Err(self.expected(what)) };
        self.p.advance_token();
        if w.value.is_empty() {
            return Err(Error::user("a name is empty").at(lex::span(t.span)));
        }
        Ok(Name { value: w.value, span: lex::span(t.span) })
    }

    /// `(a, b)`
    pub(super) fn names(&mut self, what: &str) -> Result<Vec<Name>> {
        self.token(&Token::LParen, "'('")?;
        let mut out: Vec<Name> = Vec::new();
        loop {
            let name = self.ident(what)?;
            if out.iter().any(|n| n.value == name.value) {
                return Err(Error::user(format!("'{}' stands twice in the list", name.value)).at(name.span));
            }
            out.push(name);
            if !self.p.consume_token(&Token::Comma) {
                break;
            }
        }
        self.token(&Token::RParen, "',' or ')'")?;
        Ok(out)
    }

    /// The name of a table or view, with or without the default catalog and database.
    pub(super) fn name(&mut self) -> Result<Name> {
        let mut parts = vec![self.ident("a name")?];
        while self.p.consume_token(&Token::Period) {
            parts.push(self.ident("a name")?);
        }
        unqualified(parts)
    }

    /// The end of a statement: a semicolon or the end of the text.
    pub(super) fn end(&mut self, what: &str) -> Result<()> {
        if self.ends() {
            let _ = self.p.consume_token(&Token::SemiColon);
            return Ok(());
        }
        Err(self.expected(&format!("the end of {what}, or ';'")))
    }
}

/// The last part of a name in the default catalog and database.
pub(super) fn unqualified(mut parts: Vec<Name>) -> Result<Name> {
    let name = parts.pop().expect("a name has a part");
    let known = match parts.as_slice() {
        [] => true,
        [database] => database.value == DATABASE,
        [catalog, database] => catalog.value == CATALOG && database.value == DATABASE,
        _ => false,
    };
    if known {
        return Ok(name);
    }
    let path: Vec<&str> = parts.iter().map(|p| p.value.as_str()).collect();
    let first = parts[0].span;
    let width = if first.line == name.span.line { (name.span.column + name.span.width).saturating_sub(first.column) } else { first.width };
    Err(Error::user(format!("'{}' does not exist: other catalogs and databases are not yet supported", path.join(".")))
        .at(Span { width, ..first })
        .help(format!("write `{}` alone", name.value)))
}
