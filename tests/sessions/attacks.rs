//! What a stranger can do to the real program, and what it costs: counts and bytes, never time.

mod fixture;

mod harvest;
mod refusals;
mod loops;
mod out_of_reach;
