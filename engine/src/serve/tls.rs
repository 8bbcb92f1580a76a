//! TLS from two PEM files, with ring as its cryptography.

use std::path::Path;
use std::sync::Arc;

use axum_server::tls_rustls::RustlsConfig;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::error::{Error, Result};

/// The configuration of a certificate chain and its key.
///
/// # Errors
/// User: a file cannot be read, holds no certificate or key, or they do not belong together.
pub fn config(cert: &Path, key: &Path) -> Result<RustlsConfig> {
    let bad = |what: &str, file: &Path| Error::user(format!("the file {} holds no {what} in PEM form", file.display()));
    let chain = CertificateDer::pem_file_iter(cert).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let chain = chain.map_err(|e| bad("certificate", cert).caused_by(e))?;
    if chain.is_empty() {
        return Err(bad("certificate", cert));
    }
    let private = PrivateKeyDer::from_pem_file(key).map_err(|e| bad("private key", key).caused_by(e))?;
    let unfit = |e| Error::user(format!("{} and {} cannot be used for TLS", cert.display(), key.display())).caused_by(e);
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(unfit)?.with_no_client_auth();
    let mut config = builder.with_single_cert(chain, private).map_err(unfit)?;
    // gRPC needs h2 to be agreed on.
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(RustlsConfig::from_config(Arc::new(config)))
}
