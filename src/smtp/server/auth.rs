//! AUTH (RFC 4954): when it is offered, and its exchange within the session.

use bytes::BytesMut;

use super::{Action, Expect, Hello, Line, Server, SessionState, TlsState};
use crate::smtp::extension::AuthOffer;
use crate::smtp::reply::{self, Reply};
use crate::smtp::sasl::{Exchange, Mechanism, Response, SaslStep};

/// Failed attempts after which a session is closed.
const MAX_FAILURES: usize = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthState {
    /// The receive connector does not have it.
    Unavailable,
    /// It is offered once TLS is active.
    Possible,
    Done,
}

impl Server {
    /// Whether EHLO offers AUTH now.
    pub(super) fn auth_offer(&self) -> AuthOffer {
        match (self.profile.auth, self.profile.tls) {
            (AuthState::Possible, TlsState::Active) => AuthOffer::Offered,
            _ => AuthOffer::NotOffered,
        }
    }

    #[must_use]
    pub fn is_authenticated(&self) -> bool {
        self.profile.auth == AuthState::Done
    }

    /// Handles the AUTH command.
    pub(super) fn auth(&mut self, mechanism: Mechanism, initial: Option<&Response>) {
        match (self.profile.auth, &self.state) {
            (AuthState::Unavailable, _) => return self.error(reply::NOT_IMPLEMENTED),
            (AuthState::Possible | AuthState::Done, _) if !self.is_encrypted() => {
                return self.error(reply::AUTH_NEEDS_TLS);
            }
            (AuthState::Done, _) => return self.error(reply::AUTHENTICATED_ALREADY),
            (AuthState::Possible, SessionState::Idle) => {}
            (AuthState::Possible, _) => return self.error(reply::AUTH_IN_TRANSACTION),
        }
        if !matches!(self.hello, Some(Hello::Ehlo(_))) {
            return self.error(reply::HELLO_FIRST);
        }
        let exchange = Exchange::of(mechanism);
        match initial {
            Some(response) => self.respond(exchange, response),
            None => self.challenge(exchange),
        }
    }

    /// Takes the client's next response off the input. `Some`: this action has to be performed before there is one.
    pub(super) fn auth_line(&mut self, input: &mut BytesMut) -> Option<Action> {
        let line = self.lines.take(input);
        if line == Line::Partial {
            return Some(Action::Read(Expect::Command));
        }
        let SessionState::Authenticating(exchange) = std::mem::replace(&mut self.state, SessionState::Idle) else {
            return None;
        };
        match line {
            Line::Partial => {}
            Line::Bare => self.close_with(reply::BARE_IN_COMMAND),
            Line::TooLong => self.error(reply::AUTH_LINE_TOO_LONG),
            Line::Whole(line) => match std::str::from_utf8(&line) {
                Ok(text) => self.respond(exchange, &Response::new(text)),
                Err(_) => self.error(reply::BAD_AUTH_LINE),
            },
        }
        None
    }

    fn challenge(&mut self, exchange: Exchange) {
        self.send(exchange.challenge());
        self.state = SessionState::Authenticating(exchange);
    }

    fn respond(&mut self, exchange: Exchange, response: &Response) {
        match exchange.take(response) {
            Ok(SaslStep::Challenge(exchange)) => self.challenge(exchange),
            Ok(SaslStep::Whole(credentials)) => {
                self.state = SessionState::CheckingCredentials;
                self.out.push_back(Action::Authenticate(credentials));
            }
            Err(told) => self.error(told),
        }
    }

    /// Handles the result of checking name and password.
    pub(super) fn authenticated(&mut self, verdict: Result<(), Reply>) {
        self.state = SessionState::Idle;
        match verdict {
            Ok(()) => {
                self.profile.auth = AuthState::Done;
                self.send(reply::AUTHENTICATED);
            }
            Err(told) => {
                self.auth_failures += 1;
                self.error(told);
                if self.auth_failures >= MAX_FAILURES && !matches!(self.state, SessionState::Closed) {
                    self.close_with(reply::TOO_MANY_ERRORS);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::talk;
    use super::*;

    // \0u\0right, \0u\0wrong, \0u\0later; u, right.
    const RIGHT: &str = "AUTH PLAIN AHUAcmlnaHQ=\r\n";
    const WRONG: &str = "AUTH PLAIN AHUAd3Jvbmc=\r\n";
    const LATER: &str = "AUTH PLAIN AHUAbGF0ZXI=\r\n";
    const LOGIN: &str = "AUTH LOGIN\r\ndQ==\r\ncmlnaHQ=\r\n";

    #[test]
    fn auth_is_answered_as_it_should_be() {
        let long = format!("AUTH PLAIN\r\n{}\r\nNOOP\r\n", "A".repeat(5000));
        for (text, expected) in [
            (RIGHT.to_owned(), vec!["235 2.7.0"]),
            ("AUTH PLAIN\r\nAHUAcmlnaHQ=\r\n".into(), vec!["334", "235 2.7.0"]),
            (LOGIN.into(), vec!["334", "334", "235 2.7.0"]),
            ("AUTH LOGIN dQ==\r\ncmlnaHQ=\r\n".into(), vec!["334", "235 2.7.0"]),
            (format!("{WRONG}{RIGHT}"), vec!["535 5.7.8", "235 2.7.0"]),
            (format!("{LATER}NOOP\r\n"), vec!["454 4.7.0", "250 2.0.0"]),
            (format!("{WRONG}{WRONG}{WRONG}NOOP\r\n"), vec!["535 5.7.8", "535 5.7.8", "535 5.7.8", "421 4.7.0"]),
            (format!("{RIGHT}{RIGHT}"), vec!["235 2.7.0", "503 5.5.1"]),
            ("AUTH PLAIN\r\n*\r\nNOOP\r\n".into(), vec!["334", "501 5.7.0", "250 2.0.0"]),
            ("AUTH LOGIN\r\ndQ==\r\n*\r\nNOOP\r\n".into(), vec!["334", "334", "501 5.7.0", "250 2.0.0"]),
            ("AUTH PLAIN x\r\nNOOP\r\n".into(), vec!["501 5.5.2", "250 2.0.0"]),
            (long, vec!["334", "500 5.5.6", "250 2.0.0"]),
            ("AUTH GSSAPI\r\n".into(), vec!["504 5.5.4"]),
            (format!("HELO c\r\n{RIGHT}"), vec!["250", "503 5.5.1"]),
            (
                format!("MAIL FROM:<>\r\n{RIGHT}RSET\r\n{RIGHT}"),
                vec!["250 2.1.0", "503 5.5.1", "250 2.0.0", "235 2.7.0"],
            ),
            ("AUTH PLAIN\r\nAH\nNOOP\r\n".into(), vec!["334", "500 5.5.2"]),
        ] {
            for size in [text.len(), 1, 7] {
                assert_eq!(talk(TlsState::Active, &text, size).codes, expected, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn nothing_is_asked_for_in_clear() {
        for tls in [TlsState::Unavailable, TlsState::Offered, TlsState::Required] {
            let seen = talk(tls, &format!("{RIGHT}AUTH LOGIN\r\n"), 5);
            assert_eq!(seen.codes, ["538 5.7.11", "538 5.7.11"], "{tls:?}");
        }
    }
}
