//! `properties.*`: names of the Java client, translated to librdkafka.
//!
//! Flink files carry the Java client's names. Shared names pass, some are renamed, logins and key stores
//! are translated, Java-only tuning is noted and ignored, and anything else is an error that suggests the
//! nearest name. What must always hold: no value of a secret property appears in a message.

use std::collections::BTreeMap;

use crate::error::{Error, Result, nearest};

/// Which client the settings are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reads.
    Consumer,
    /// Writes.
    Producer,
    /// Asks and changes topics.
    Admin,
}

/// Settings in librdkafka's names, and what the user should know of the rest.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// librdkafka name → value. Holds secrets: never print it.
    pub values: BTreeMap<String, String>,
    /// Properties that have no meaning here and were left out, one sentence each.
    pub notes: Vec<String>,
}

impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Settings").field("names", &self.values.keys()).field("notes", &self.notes).finish()
    }
}

/// Translates `properties` (Java names without the `properties.` prefix) of `owner` for a client of `role`.
///
/// # Errors
/// User: an unknown name, a login or key store that cannot be used.
pub fn translate(owner: &str, properties: &BTreeMap<String, String>, role: Role) -> Result<Settings> {
    let mut settings = Settings::default();
    for (name, value) in properties {
        let Some((_, side, action)) = TABLE.iter().find(|(n, _, _)| n == name) else {
            return Err(unknown(owner, name));
        };
        match (side, role) {
            (Side::Both, _) | (Side::Consumer, Role::Consumer) | (Side::Producer, Role::Producer) => {}
            // One table serves reading and writing: the other half's tuning is no news.
            _ => continue,
        }
        match action {
            Action::Pass => settings.set(name, value),
            Action::As(to) => settings.set(to, value),
            Action::Buffer(to) => settings.set(to, if value.trim() == "-1" { "0" } else { value }),
            Action::KibiBytes(to) => {
                let bytes: u64 = value
                    .trim()
                    .parse()
                    .map_err(|_| Error::user(format!("{owner}: option 'properties.{name}' is '{value}', but must be a number of bytes")))?;
                settings.set(to, &(bytes / 1024).max(1).to_string());
            }
            Action::Ignore => {
                settings.notes.push(format!("{owner}: 'properties.{name}' tunes the Java client and has no effect here"));
            }
            Action::Ours => {}
            Action::Handled => {}
        }
    }
    timeouts(properties, role, &mut settings);
    login(owner, properties, &mut settings)?;
    stores(owner, properties, &mut settings)?;
    Ok(settings)
}

impl Settings {
    fn set(&mut self, name: &str, value: &str) {
        self.values.insert(name.to_string(), value.to_string());
    }
}

fn unknown(owner: &str, name: &str) -> Error {
    let e = Error::user(format!("{owner} has an unknown Kafka property 'properties.{name}'"));
    if name.starts_with("sasl.oauthbearer") || name.starts_with("sasl.kerberos") {
        return e.help("logins by PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 are supported, and TLS certificates");
    }
    if matches!(name, "sasl.username" | "sasl.password") {
        return e.help(
            "write 'properties.sasl.jaas.config' = 'org.apache.kafka.common.security.plain.PlainLoginModule required username=\"…\" password=\"…\";'",
        );
    }
    match nearest(name, TABLE.iter().map(|(n, _, _)| *n)) {
        Some(n) => e.help(format!("did you mean 'properties.{n}'?")),
        None => e.help("names are those of the Java client (kafka.apache.org/documentation, consumer and producer configs)"),
    }
}

/// `request.timeout.ms` bounds a produce request for the producer and every request for the others.
fn timeouts(properties: &BTreeMap<String, String>, role: Role, settings: &mut Settings) {
    if let Some(value) = properties.get("request.timeout.ms") {
        settings.set(if role == Role::Producer { "request.timeout.ms" } else { "socket.timeout.ms" }, value);
    }
}

fn login(owner: &str, properties: &BTreeMap<String, String>, settings: &mut Settings) -> Result<()> {
    let protocol = properties.get("security.protocol").map(|p| p.to_ascii_uppercase()).unwrap_or_default();
    let jaas = properties.get("sasl.jaas.config");
    if !protocol.starts_with("SASL") {
        if jaas.is_some() && !properties.contains_key("security.protocol") {
            return Err(Error::user(format!("{owner} has 'properties.sasl.jaas.config' but no 'properties.security.protocol'"))
                .help("add 'properties.security.protocol' = 'SASL_SSL' (or 'SASL_PLAINTEXT')"));
        }
        return Ok(());
    }
    let supported = "PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512 are supported";
    let mechanism = match properties.get("sasl.mechanism") {
        Some(m) => m.trim().to_ascii_uppercase(),
        // The Java client's default.
        None => "GSSAPI".to_string(),
    };
    match mechanism.as_str() {
        "PLAIN" | "SCRAM-SHA-256" | "SCRAM-SHA-512" => {}
        "GSSAPI" => {
            let how =
                if properties.contains_key("sasl.mechanism") { "" } else { " (the default where 'properties.sasl.mechanism' is absent)" };
            return Err(Error::user(format!("{owner}: Kerberos login (GSSAPI){how} is not supported"))
                .help(format!("{supported}: set 'properties.sasl.mechanism'")));
        }
        other => return Err(Error::user(format!("{owner}: SASL mechanism '{other}' is not supported")).help(supported)),
    }
    settings.set("sasl.mechanism", &mechanism);
    let Some(jaas) = jaas else {
        return Err(Error::user(format!("{owner}: SASL login needs 'properties.sasl.jaas.config'"))
            .help("for example 'org.apache.kafka.common.security.plain.PlainLoginModule required username=\"…\" password=\"…\";'"));
    };
    let (module, fields) = parse_jaas(jaas).ok_or_else(|| {
        // The text itself holds the password: it is not shown.
        Error::user(format!("{owner}: 'properties.sasl.jaas.config' cannot be read"))
            .help("it reads: <login module> required username=\"…\" password=\"…\";")
    })?;
    let wanted = if mechanism == "PLAIN" { "PlainLoginModule" } else { "ScramLoginModule" };
    if !module.ends_with(wanted) {
        let short = module.rsplit('.').next().unwrap_or(&module);
        return Err(Error::user(format!("{owner}: 'properties.sasl.jaas.config' names {short}, but {mechanism} needs {wanted}")));
    }
    for (field, to) in [("username", "sasl.username"), ("password", "sasl.password")] {
        match fields.get(field) {
            Some(v) => settings.set(to, v),
            None => return Err(Error::user(format!("{owner}: 'properties.sasl.jaas.config' has no {field}"))),
        }
    }
    Ok(())
}

/// `module flag key="value" …;` → the module and its fields.
fn parse_jaas(text: &str) -> Option<(String, BTreeMap<String, String>)> {
    let text = text.trim().strip_suffix(';')?;
    let (module, rest) = text.split_once(char::is_whitespace)?;
    let (_, mut rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let mut fields = BTreeMap::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Some((module.to_string(), fields));
        }
        let (key, after) = rest.split_once('=')?;
        let after = after.trim_start();
        let mut value = String::new();
        let quote = after.chars().next().filter(|c| matches!(c, '"' | '\''));
        let body = quote.map_or(after, |q| &after[q.len_utf8()..]);
        let mut chars = body.char_indices();
        let mut end = None;
        while let Some((at, c)) = chars.next() {
            match quote {
                Some(q) if c == q => {
                    end = Some(at + c.len_utf8());
                    break;
                }
                Some(_) if c == '\\' => value.push(chars.next()?.1),
                None if c.is_whitespace() => {
                    end = Some(at);
                    break;
                }
                _ => value.push(c),
            }
        }
        if quote.is_some() && end.is_none() {
            return None;
        }
        rest = &body[end.unwrap_or(body.len())..];
        fields.insert(key.trim().to_string(), value);
    }
}

/// Kinds of key and trust stores.
enum Store {
    Pem,
    Pkcs12,
    Jks,
}

fn store_kind(properties: &BTreeMap<String, String>, which: &str, path: &str) -> Store {
    let declared = properties.get(&format!("ssl.{which}.type")).map(|t| t.to_ascii_uppercase());
    let ending = path.rsplit('.').next().unwrap_or("").to_ascii_lowercase();
    match declared.as_deref() {
        Some("PEM") => Store::Pem,
        Some("PKCS12") => Store::Pkcs12,
        Some(_) => Store::Jks,
        None if matches!(ending.as_str(), "pem" | "crt" | "cer") => Store::Pem,
        None if matches!(ending.as_str(), "p12" | "pfx") => Store::Pkcs12,
        None => Store::Jks,
    }
}

fn stores(owner: &str, properties: &BTreeMap<String, String>, settings: &mut Settings) -> Result<()> {
    let get = |name: &str| properties.get(name);
    if let Some(path) = get("ssl.truststore.location") {
        match store_kind(properties, "truststore", path) {
            Store::Pem => settings.set("ssl.ca.location", path),
            Store::Pkcs12 => {
                return Err(Error::user(format!("{owner}: the trust store '{path}' is PKCS12, but trusted certificates are read as PEM only"))
                    .help(format!("openssl pkcs12 -in {path} -nokeys -out ca.pem, then 'properties.ssl.truststore.location' = 'ca.pem' and 'properties.ssl.truststore.type' = 'PEM'")));
            }
            Store::Jks => {
                return Err(Error::user(format!("{owner}: the trust store '{path}' is a Java key store (JKS), which cannot be read"))
                    .help("keytool -exportcert -rfc -keystore … -file ca.pem, then 'properties.ssl.truststore.type' = 'PEM'"));
            }
        }
    }
    if let Some(path) = get("ssl.keystore.location") {
        match store_kind(properties, "keystore", path) {
            // One PEM file holds the private key and the certificate chain, as for Java.
            Store::Pem => {
                settings.set("ssl.certificate.location", path);
                settings.set("ssl.key.location", path);
            }
            Store::Pkcs12 => {
                settings.set("ssl.keystore.location", path);
                if let Some(password) = get("ssl.keystore.password") {
                    settings.set("ssl.keystore.password", password);
                }
            }
            Store::Jks => {
                return Err(Error::user(format!("{owner}: the key store '{path}' is a Java key store (JKS), which cannot be read"))
                    .help("keytool -importkeystore -deststoretype PKCS12 -srckeystore … -destkeystore key.p12, then 'properties.ssl.keystore.type' = 'PKCS12'"));
            }
        }
    }
    for (java, ours) in [
        ("ssl.truststore.certificates", "ssl.ca.pem"),
        ("ssl.keystore.certificate.chain", "ssl.certificate.pem"),
        ("ssl.keystore.key", "ssl.key.pem"),
        ("ssl.key.password", "ssl.key.password"),
    ] {
        if let Some(value) = get(java) {
            settings.set(ours, value);
        }
    }
    if let Some(algorithm) = get("ssl.endpoint.identification.algorithm") {
        // To Java the empty word means "do not check".
        settings.set("ssl.endpoint.identification.algorithm", if algorithm.trim().is_empty() { "none" } else { algorithm });
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Side {
    Both,
    Consumer,
    Producer,
}

#[derive(Clone, Copy)]
enum Action {
    /// The same name and meaning.
    Pass,
    /// Another name, the same meaning.
    As(&'static str),
    /// A socket buffer, where Java's -1 means the system's choice (0 in librdkafka).
    Buffer(&'static str),
    /// Bytes that librdkafka wants in KiB.
    KibiBytes(&'static str),
    /// Java only: noted.
    Ignore,
    /// The engine decides (positions are in the checkpoint, formats by the table): nothing to say.
    Ours,
    /// Translated together with others.
    Handled,
}

use Action::{As, Buffer, Handled, Ignore, KibiBytes, Ours, Pass};
use Side::{Both, Consumer, Producer};

const TABLE: &[(&str, Side, Action)] = &[
    ("bootstrap.servers", Both, Pass),
    ("client.id", Both, Pass),
    ("client.rack", Both, Pass),
    ("client.dns.lookup", Both, Pass),
    ("security.protocol", Both, Pass),
    ("connections.max.idle.ms", Both, Pass),
    ("reconnect.backoff.ms", Both, Pass),
    ("reconnect.backoff.max.ms", Both, Pass),
    ("retry.backoff.ms", Both, Pass),
    ("retry.backoff.max.ms", Both, Pass),
    ("metadata.max.age.ms", Both, Pass),
    ("socket.connection.setup.timeout.ms", Both, Pass),
    ("allow.auto.create.topics", Consumer, Pass),
    ("ssl.cipher.suites", Both, Pass),
    ("enable.metrics.push", Both, Pass),
    ("send.buffer.bytes", Both, Buffer("socket.send.buffer.bytes")),
    ("receive.buffer.bytes", Both, Buffer("socket.receive.buffer.bytes")),
    ("request.timeout.ms", Both, Handled),
    ("sasl.mechanism", Both, Handled),
    ("sasl.jaas.config", Both, Handled),
    ("ssl.truststore.location", Both, Handled),
    ("ssl.truststore.type", Both, Handled),
    ("ssl.truststore.password", Both, Handled),
    ("ssl.truststore.certificates", Both, Handled),
    ("ssl.keystore.location", Both, Handled),
    ("ssl.keystore.type", Both, Handled),
    ("ssl.keystore.password", Both, Handled),
    ("ssl.keystore.key", Both, Handled),
    ("ssl.keystore.certificate.chain", Both, Handled),
    ("ssl.key.password", Both, Handled),
    ("ssl.endpoint.identification.algorithm", Both, Handled),
    // Reading.
    ("group.id", Consumer, Ours),
    ("group.instance.id", Consumer, Ours),
    ("auto.offset.reset", Consumer, Ours),
    ("enable.auto.commit", Consumer, Ours),
    ("auto.commit.interval.ms", Consumer, Ours),
    ("commit.offsets.on.checkpoint", Consumer, Ours),
    ("partition.discovery.interval.ms", Consumer, Ours),
    ("isolation.level", Consumer, Pass),
    ("check.crcs", Consumer, Pass),
    ("fetch.min.bytes", Consumer, Pass),
    ("fetch.max.bytes", Consumer, Pass),
    ("max.partition.fetch.bytes", Consumer, As("fetch.message.max.bytes")),
    ("fetch.max.wait.ms", Consumer, As("fetch.wait.max.ms")),
    ("session.timeout.ms", Consumer, Ours),
    ("heartbeat.interval.ms", Consumer, Ours),
    ("max.poll.interval.ms", Consumer, Ours),
    ("max.poll.records", Consumer, Ignore),
    ("group.protocol", Consumer, Ours),
    ("group.remote.assignor", Consumer, Ours),
    ("partition.assignment.strategy", Consumer, Ours),
    ("key.deserializer", Consumer, Ours),
    ("value.deserializer", Consumer, Ours),
    ("exclude.internal.topics", Consumer, Ignore),
    ("default.api.timeout.ms", Both, Ignore),
    ("client.id.prefix", Consumer, Ignore),
    ("register.consumer.metrics", Consumer, Ignore),
    // Writing.
    ("acks", Producer, Pass),
    ("retries", Producer, Pass),
    ("batch.size", Producer, Pass),
    ("linger.ms", Producer, Pass),
    ("compression.type", Producer, Pass),
    ("compression.gzip.level", Producer, As("compression.level")),
    ("compression.lz4.level", Producer, As("compression.level")),
    ("compression.zstd.level", Producer, As("compression.level")),
    ("enable.idempotence", Producer, Pass),
    ("max.in.flight.requests.per.connection", Producer, Pass),
    ("delivery.timeout.ms", Producer, As("message.timeout.ms")),
    ("max.request.size", Producer, As("message.max.bytes")),
    ("buffer.memory", Producer, KibiBytes("queue.buffering.max.kbytes")),
    ("transaction.timeout.ms", Producer, Ours),
    ("transactional.id", Producer, Ours),
    ("key.serializer", Producer, Ours),
    ("value.serializer", Producer, Ours),
    ("max.block.ms", Producer, Ignore),
    ("partitioner.class", Producer, Ignore),
    ("partitioner.ignore.keys", Producer, Ignore),
    ("partitioner.adaptive.partitioning.enable", Producer, Ignore),
    ("partitioner.availability.timeout.ms", Producer, Ignore),
    ("metadata.max.idle.ms", Producer, Ignore),
    // Only the Java client knows these.
    ("auto.include.jmx.reporter", Both, Ignore),
    ("interceptor.classes", Both, Ignore),
    ("metadata.recovery.rebootstrap.trigger.ms", Both, Ignore),
    ("metadata.recovery.strategy", Both, Ignore),
    ("metric.reporters", Both, Ignore),
    ("metrics.num.samples", Both, Ignore),
    ("metrics.recording.level", Both, Ignore),
    ("metrics.sample.window.ms", Both, Ignore),
    ("sasl.client.callback.handler.class", Both, Ignore),
    ("sasl.login.class", Both, Ignore),
    ("sasl.login.callback.handler.class", Both, Ignore),
    ("sasl.login.connect.timeout.ms", Both, Ignore),
    ("sasl.login.read.timeout.ms", Both, Ignore),
    ("sasl.login.refresh.buffer.seconds", Both, Ignore),
    ("sasl.login.refresh.min.period.seconds", Both, Ignore),
    ("sasl.login.refresh.window.factor", Both, Ignore),
    ("sasl.login.refresh.window.jitter", Both, Ignore),
    ("sasl.login.retry.backoff.max.ms", Both, Ignore),
    ("sasl.login.retry.backoff.ms", Both, Ignore),
    ("security.providers", Both, Ignore),
    ("socket.connection.setup.timeout.max.ms", Both, Ignore),
    ("ssl.enabled.protocols", Both, Ignore),
    ("ssl.engine.factory.class", Both, Ignore),
    ("ssl.keymanager.algorithm", Both, Ignore),
    ("ssl.protocol", Both, Ignore),
    ("ssl.provider", Both, Ignore),
    ("ssl.secure.random.implementation", Both, Ignore),
    ("ssl.trustmanager.algorithm", Both, Ignore),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)], role: Role) -> String {
        let map = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        match translate("table 't'", &map, role) {
            Ok(s) => s.values.iter().map(|(k, v)| format!("{k}={v}")).chain(s.notes).collect::<Vec<_>>().join("\n"),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn java_names_become_librdkafka_names() {
        let pairs = [
            ("bootstrap.servers", "h:9"),
            ("fetch.max.wait.ms", "7"),
            ("acks", "all"),
            ("buffer.memory", "2048"),
            ("request.timeout.ms", "9"),
        ];
        assert_eq!(check(&pairs, Role::Consumer), "bootstrap.servers=h:9\nfetch.wait.max.ms=7\nsocket.timeout.ms=9");
        assert_eq!(check(&pairs, Role::Producer), "acks=all\nbootstrap.servers=h:9\nqueue.buffering.max.kbytes=2\nrequest.timeout.ms=9");
        assert_eq!(
            check(&[("max.poll.records", "7")], Role::Consumer),
            "table 't': 'properties.max.poll.records' tunes the Java client and has no effect here"
        );
    }

    #[test]
    fn an_unknown_name_suggests_the_nearest() {
        assert_eq!(
            check(&[("bootstrap.server", "h")], Role::Consumer),
            "table 't' has an unknown Kafka property 'properties.bootstrap.server'\nhelp: did you mean 'properties.bootstrap.servers'?"
        );
    }

    #[test]
    fn logins_are_translated_and_never_shown() {
        let jaas = "org.apache.flink.kafka.shaded.org.apache.kafka.common.security.scram.ScramLoginModule required username=\"u\" password=\"p\\\"w\";";
        let pairs = [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "SCRAM-SHA-256"), ("sasl.jaas.config", jaas)];
        assert_eq!(
            check(&pairs, Role::Consumer),
            "sasl.mechanism=SCRAM-SHA-256\nsasl.password=p\"w\nsasl.username=u\nsecurity.protocol=SASL_SSL"
        );
        let plain = [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", jaas)];
        assert_eq!(
            check(&plain, Role::Consumer),
            "table 't': 'properties.sasl.jaas.config' names ScramLoginModule, but PLAIN needs PlainLoginModule"
        );
        let torn = [("security.protocol", "SASL_SSL"), ("sasl.mechanism", "PLAIN"), ("sasl.jaas.config", "x required password=\"hidden")];
        assert!(!check(&torn, Role::Consumer).contains("hidden"));
        assert!(check(&[("security.protocol", "SASL_SSL")], Role::Consumer).contains("Kerberos login (GSSAPI)"));
        let map = pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        assert!(!format!("{:?}", translate("t", &map, Role::Consumer)).contains("p\\\"w"));
    }

    #[test]
    fn key_stores_are_translated_where_they_can_be() {
        assert_eq!(check(&[("ssl.truststore.location", "ca.pem")], Role::Admin), "ssl.ca.location=ca.pem");
        assert_eq!(
            check(&[("ssl.keystore.location", "k.p12"), ("ssl.keystore.password", "x")], Role::Admin),
            "ssl.keystore.location=k.p12\nssl.keystore.password=x"
        );
        assert!(check(&[("ssl.truststore.location", "trust.jks")], Role::Admin).contains("JKS"));
    }
}
