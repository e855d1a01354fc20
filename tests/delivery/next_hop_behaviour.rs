//! Real servers on their good and bad days, and scripted ones as Exchange, Postfix, qmail and others of the field really
//! are: what the program makes of it. Nobody is told what is not so, nobody waits for somebody else, nothing is lost.
//!
//! Everywhere `pN` are in the directory and go to the connector `primary`; all others of the domain are unresolved and go
//! to `secondary`. The comments have the numbers of the field's cases: M refusals, P slow but healthy.

mod fixture;
mod postfix_refuses;
mod postfix_slows;
mod dovecot;
mod kinds;
mod refusals;
mod dot;
mod exchange;
mod wan;
mod pace;
