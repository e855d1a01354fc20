//! SMTP AUTH both ways: swaks and Python against a users file and against slapd; us against a Postfix with Cyrus SASL.

mod inbound;
mod outbound;
mod guesses;
mod under_way;
