//! TLS towards directory servers: certificates are always checked, against the configured CA or the system's.

use std::path::Path;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::tls::connect::roots;

/// Reads the CA, anew for each connection so that a renewed one is taken.
///
/// # Errors
/// What is wrong with the CA file, and what to do.
pub(super) fn client_config(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let roots = roots(ca).map_err(|error| error.to_string())?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| format!("TLS cannot be used: {error}"))?;
    Ok(Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
}
