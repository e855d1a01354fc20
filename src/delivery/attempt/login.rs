//! AUTH PLAIN (RFC 4616) and LOGIN towards a next hop (RFC 4954), over TLS only.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::connection::Connection;
use super::next_hop_error::{NO_SECURITY, NextHopError};
use super::open::{Say, expect};
use crate::config::{Mechanism, SendAuth};
use crate::delivery::refusal::Step;
use crate::delivery::refusal::read::Reading;
use crate::smtp::reply::Reply;

/// Authenticates.
///
/// # Errors
/// [`NextHopError`]: without authentication nothing is sent to the next hop.
pub(super) async fn authenticate(connection: &mut Connection, auth: &SendAuth) -> Result<(), NextHopError> {
    let failed = |connection: &Connection, text: &str| {
        NextHopError::at(&connection.next_hop, NO_SECURITY, text).at_step(Step::Auth).alerting()
    };
    if !connection.is_tls() {
        return Err(failed(connection, "it offers no TLS, and without TLS we do not authenticate"));
    }
    let offered = match auth.mechanism {
        Mechanism::Plain => connection.offers.auth_plain,
        Mechanism::Login => connection.offers.auth_login,
    };
    if !offered {
        let text = format!("it does not offer AUTH {}", name(auth.mechanism));
        return Err(failed(connection, &text));
    }
    let password = match tokio::fs::read_to_string(&auth.password_file).await {
        Ok(password) => password,
        Err(error) => {
            let text = format!("{}: {error}; it is `password_file`", auth.password_file.display());
            return Err(failed(connection, &text));
        }
    };
    let password = password.strip_suffix('\n').unwrap_or(&password);
    let password = password.strip_suffix('\r').unwrap_or(password);
    let last = match auth.mechanism {
        Mechanism::Plain => {
            let secret = STANDARD.encode(format!("\0{}\0{password}", auth.username));
            expect(connection, Step::Auth, Say::Line(&format!("AUTH PLAIN {secret}"))).await?
        }
        Mechanism::Login => {
            challenge(connection, "AUTH LOGIN").await?;
            challenge(connection, &STANDARD.encode(&auth.username)).await?;
            expect(connection, Step::Auth, Say::Line(&STANDARD.encode(password))).await?
        }
    };
    if last.code == 235 { Ok(()) } else { Err(out_of_step(connection, &last)) }
}

/// Sends a line that is to be answered by 334.
async fn challenge(connection: &mut Connection, line: &str) -> Result<(), NextHopError> {
    let reply = expect(connection, Step::Auth, Say::Line(line)).await?;
    if reply.code == 334 { Ok(()) } else { Err(out_of_step(connection, &reply)) }
}

fn out_of_step(connection: &Connection, reply: &Reply) -> NextHopError {
    NextHopError::said(connection, Step::Auth, reply, Reading::out_of_step())
}

fn name(mechanism: Mechanism) -> &'static str {
    match mechanism {
        Mechanism::Plain => "PLAIN",
        Mechanism::Login => "LOGIN",
    }
}
