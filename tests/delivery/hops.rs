//! What next hops do to the whole program: refuse, misunderstand, sleep, die, change; and what the queue and the sender
//! see of it. Each case runs the real binary; the next hops are scripted ones and real Postfix.

mod says;
mod change;
mod password;
mod reports;
mod unknown;
mod operator;
mod outage;
mod parameters;
mod silent;
mod tarpit;
mod postfix;
