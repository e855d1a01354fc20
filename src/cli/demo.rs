//! `fingerpost demo`: everything on one machine, with no privilege and no other program: two organisations that share
//! a domain, Fingerpost between them, and sample mail that shows what it does and why.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use super::Outcome;
use crate::admin::explain::explain;
use crate::descriptors;
use crate::smtp::address::Address;

mod arrivals;
mod samples;
mod send;
mod world;

use arrivals::Arrived;
use samples::{SAMPLES, SENDER, Sample};
use world::World;

/// How long to wait for sample mail.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to check whether it has arrived.
const LOOK: Duration = Duration::from_millis(20);

/// What follows after the demonstration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    End,
    /// It keeps running for manual tests until it is interrupted.
    StayUp,
}

/// Runs it. [`Outcome::No`]: something did not arrive as expected.
pub(super) async fn demo(then: Then) -> anyhow::Result<Outcome> {
    descriptors::raise_limit();
    let world = World::start().await?;
    introduce(&world);
    let mut well = 0;
    for (at, sample) in SAMPLES.iter().enumerate() {
        well += usize::from(show(&world, at + 1, sample).await?);
    }
    let outcome = if well == SAMPLES.len() { Outcome::Done } else { Outcome::No };
    match outcome {
        Outcome::Done => println!("Everything arrived as it should: nothing lost, nothing misrouted, nothing twice."),
        Outcome::No => println!("{} of {} did not arrive as they should.", SAMPLES.len() - well, SAMPLES.len()),
    }
    if then == Then::StayUp {
        invite(&world);
        interrupted().await.context("cannot wait for an interrupt")?;
        println!("\nStopping.");
    }
    world.end().await;
    Ok(outcome)
}

/// Waits for Ctrl-C or SIGTERM.
async fn interrupted() -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        interrupted = tokio::signal::ctrl_c() => interrupted,
        _ = terminate.recv() => Ok(()),
    }
}

fn introduce(world: &World) {
    let at = &world.addresses;
    println!(
        "One domain, contoso.example, on two mail systems, and Fingerpost between them.\n\n\
         \x20 fingerpost  {:<16} its directory has alice and anna: they are the primary's\n\
         \x20 primary     {:<16} mail server of alice and anna\n\
         \x20 secondary   {:<16} mail server of bob and carol, whom no directory of ours has\n",
        at.fingerpost.to_string(),
        at.primary.to_string(),
        at.secondary.to_string()
    );
}

/// Sends one sample, and prints what happened and why. Returns whether it arrived as expected.
async fn show(world: &World, number: usize, sample: &Sample) -> anyhow::Result<bool> {
    println!("{number}. {}", sample.title);
    for recipient in sample.to {
        explain_recipient(world, recipient).await?;
    }
    let message_id = format!("<demo-{number}-{}@contoso.example>", std::process::id());
    let content = format!(
        "From: Alice <{SENDER}>\r\nTo: {}\r\nSubject: {}\r\nDate: {}\r\nMessage-ID: {message_id}\r\n\r\n\
         A sample of `fingerpost demo`.",
        sample.to.join(", "),
        sample.title,
        crate::time::UnixTime::now().rfc5322()
    );
    let sent = send::send(world.addresses.fingerpost, SENDER, sample.to, &content).await?;
    for (recipient, said) in sample.to.iter().zip(&sent.recipients) {
        println!("   sent to {recipient}: {said}");
    }
    if let Some(said) = &sent.message {
        println!("   the message: {said}");
    }
    if !sample.then.is_empty() {
        println!("   then: {}", sample.then.replace('\n', "\n         "));
    }
    let (expected, arrived) = (sample.expected(), arrival(world, sample, &message_id).await);
    println!("   arrived: {}", in_words(&arrived));
    let well = arrived == expected;
    if !well {
        println!("   WRONG: it should have been {}", in_words(&expected));
    }
    println!();
    Ok(well)
}

/// Prints the decision, as `fingerpost route` would.
async fn explain_recipient(world: &World, recipient: &str) -> anyhow::Result<()> {
    let address = Address::parse(recipient)?;
    let in_force = world.fingerpost.in_force();
    let explained =
        explain(&in_force.config, &in_force.resolver, &address, Some(world.addresses.fingerpost.ip())).await;
    let explained = explained.map_err(anyhow::Error::msg)?;
    for line in explained.text().lines() {
        println!("   {line}");
    }
    Ok(())
}

/// What has arrived when no node has anything left to deliver and the expected mail is there, or the time is up.
/// Waiting for that shows duplicates as well.
async fn arrival(world: &World, sample: &Sample, message_id: &str) -> Arrived {
    let (maildirs, expected) = (world.maildirs(), sample.expected());
    let until = Instant::now() + PATIENCE;
    loop {
        let quiet = world.is_quiet();
        let arrived = arrivals::count(&maildirs, message_id);
        if (quiet && arrived == expected) || Instant::now() > until {
            return arrived;
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn in_words(arrived: &Arrived) -> String {
    if arrived.is_empty() {
        return "nowhere".into();
    }
    let mailbox = |(mailbox, count): (&String, &arrivals::Count)| format!("{} at {mailbox}", arrivals::words(count));
    arrived.iter().map(mailbox).collect::<Vec<_>>().join(", ")
}

fn invite(world: &World) {
    let (at, file) = (&world.addresses, world.configuration());
    let file = file.display();
    println!(
        "\nIt stays up until Ctrl-C. Try it:\n\n\
         \x20 swaks --server {host}:{port} --from {SENDER} --to bob@contoso.example\n\
         \x20 fingerpost --config {file} route bob@contoso.example\n\
         \x20 fingerpost --config {file} trace\n\
         \x20 fingerpost --config {file} status\n\
         \x20 curl http://{metrics}/metrics\n\n\
         Status page: http://{admin}/ (any name; the password is in {token})\n\
         Maildirs:    {maildirs}",
        host = at.fingerpost.ip(),
        port = at.fingerpost.port(),
        metrics = at.metrics,
        admin = at.admin,
        token = world.fingerpost.in_force().config.admin.token_file.display(),
        maildirs = world.maildirs().map(|(_, folder)| folder.display().to_string()).join("\n             "),
    );
}
