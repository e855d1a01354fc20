//! TLS to directory servers: their certificates are always verified, against the configured CA or the system's; ours is
//! presented to servers that request one.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::sign::SingleCertAndKey;

use crate::config::LdapConfig;
use crate::tls::accept;
use crate::tls::connect::roots;

/// Reads the certificates; called for each connection, so that renewed ones are used.
///
/// # Errors
/// What is wrong with a file, and what to do.
pub(super) fn client_config(config: &LdapConfig) -> Result<Arc<ClientConfig>, String> {
    let roots = roots(config.ca.as_deref()).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS cannot be used: {error}"))?.with_root_certificates(roots);
    Ok(Arc::new(match &config.certificate {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let ours = accept::load(files).map_err(|error| format!("client certificate: {error}"))?;
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(ours)))
        }
    }))
}
