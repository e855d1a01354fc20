//! Sessions that never stop sending, to recipients of every sort, and remember what they were told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use support::senders::{Raw, SmtpReply};
use support::two_systems::message;

/// How many addresses the directory has: `known0@contoso.test` and so on.
pub const KNOWN: usize = 4_000;

/// So many of them are asked for again and again, and so cached.
const CACHED: usize = 10;

/// Sessions at a time.
const SESSIONS: usize = 4;

/// A sender's pause between two messages.
const PAUSE: Duration = Duration::from_millis(40);

/// Sorts of recipients of the shared domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Whom {
    /// In the directory, and asked for before.
    CachedKnown,
    /// In the directory, never asked for.
    Known,
    /// Not in the directory, asked for before.
    CachedUnknown,
    /// Not in the directory, never asked for.
    Unknown,
}

/// All of them.
pub const ALL: [Whom; 4] = [Whom::CachedKnown, Whom::Known, Whom::CachedUnknown, Whom::Unknown];

/// A session that asks all the time about recipients of another domain, which another directory knows.
pub struct Beside {
    over: Arc<AtomicBool>,
    asked: Arc<Mutex<Vec<(Instant, Duration)>>>,
    session: Option<JoinHandle<()>>,
}

impl Beside {
    /// Begins: `here@` the domain is known, nobody else is.
    pub fn start(server: SocketAddr, domain: &'static str) -> Self {
        let (over, asked) = (Arc::<AtomicBool>::default(), Arc::<Mutex<Vec<_>>>::default());
        let (ending, noting) = (Arc::clone(&over), Arc::clone(&asked));
        let session = std::thread::spawn(move || {
            let mut raw = Raw::hello(server);
            while !ending.load(Ordering::SeqCst) {
                assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
                for (name, code) in [("here", 250), ("nobody", 550)] {
                    let sent = Instant::now();
                    let said = raw.say(&format!("RCPT TO:<{name}@{domain}>"));
                    noting.lock().unwrap().push((sent, sent.elapsed()));
                    assert_eq!(said.0, code, "{name}@{domain}: {}", said.1);
                }
                raw.say("RSET");
                std::thread::sleep(PAUSE);
            }
        });
        Self { over, asked, session: Some(session) }
    }

    /// How long the replies between took: the median and the longest of twenty.
    pub fn took(&self, from: Instant, until: Instant) -> (Duration, Duration) {
        let asked = self.asked.lock().unwrap();
        let mut took: Vec<Duration> =
            asked.iter().filter(|(sent, _)| *sent >= from && *sent <= until).map(|(_, took)| *took).collect();
        took.sort_unstable();
        assert!(!took.is_empty(), "the session beside has ended");
        (took[took.len() / 2], took[took.len() * 19 / 20])
    }

    /// Ends it.
    pub fn end(mut self) {
        self.over.store(true, Ordering::SeqCst);
        self.session.take().unwrap().join().unwrap();
    }
}

/// Hands out addresses; those that were never asked for once only.
#[derive(Default)]
pub struct Names {
    cached: AtomicUsize,
    known: AtomicUsize,
    unknown: AtomicUsize,
}

/// One message that somebody tried to send.
#[derive(Debug, Clone)]
pub struct Try {
    /// To whom.
    pub whom: Whom,
    /// Marks the message.
    pub token: String,
    /// When RCPT was sent.
    pub sent: Instant,
    /// When its reply was there.
    pub answered: Instant,
    /// The reply to RCPT.
    pub said: SmtpReply,
    /// Whether the whole message got 250; `None` where RCPT did not.
    pub kept: Option<bool>,
}

/// The running sessions.
pub struct Load {
    over: Arc<AtomicBool>,
    tries: Arc<Mutex<Vec<Try>>>,
    sessions: Vec<JoinHandle<()>>,
}

impl Names {
    /// An address of that sort.
    pub fn of(&self, whom: Whom) -> String {
        match whom {
            Whom::CachedKnown => format!("known{}@contoso.test", next(&self.cached) % CACHED),
            Whom::Known => {
                let number = CACHED + next(&self.known);
                assert!(number < KNOWN, "all known addresses are used up");
                format!("known{number}@contoso.test")
            }
            Whom::CachedUnknown => "nobody@contoso.test".to_owned(),
            Whom::Unknown => self.unknown_at("contoso.test"),
        }
    }

    /// An address that nobody has, and nobody asked for.
    pub fn unknown_at(&self, domain: &str) -> String {
        format!("nobody{}@{domain}", next(&self.unknown))
    }
}

impl Load {
    /// Begins.
    pub fn start(server: SocketAddr, names: &Arc<Names>) -> Self {
        let (over, tries) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let sessions = (0..SESSIONS)
            .map(|session| {
                let (over, tries, names) = (Arc::clone(&over), Arc::clone(&tries), Arc::clone(names));
                std::thread::spawn(move || {
                    let mut raw = Raw::hello(server);
                    for number in session.. {
                        if over.load(Ordering::SeqCst) {
                            return;
                        }
                        let tried = attempt(&mut raw, &names, ALL[number % ALL.len()], &format!("{session}-{number}"));
                        tries.lock().unwrap().push(tried);
                        std::thread::sleep(PAUSE);
                    }
                })
            })
            .collect();
        Self { over, tries, sessions }
    }

    /// What was tried so far.
    pub fn tries(&self) -> Vec<Try> {
        self.tries.lock().unwrap().clone()
    }

    /// Lets every session end its message, and returns everything that was tried.
    pub fn end(self) -> Vec<Try> {
        self.over.store(true, Ordering::SeqCst);
        for session in self.sessions {
            session.join().unwrap();
        }
        self.tries.lock().unwrap().clone()
    }
}

fn next(counter: &AtomicUsize) -> usize {
    counter.fetch_add(1, Ordering::SeqCst)
}

fn attempt(raw: &mut Raw, names: &Names, whom: Whom, token: &str) -> Try {
    let to = names.of(whom);
    assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
    let sent = Instant::now();
    let said = raw.say(&format!("RCPT TO:<{to}>"));
    let answered = Instant::now();
    let kept = (said.0 == 250).then(|| {
        assert_eq!(raw.say("DATA").0, 354);
        raw.send(&message(token, 500));
        raw.say("\r\n.").0 == 250
    });
    if kept.is_none() {
        raw.say("RSET");
    }
    Try { whom, token: token.to_owned(), sent, answered, said, kept }
}

/// The reply to RCPT, and how long it took. Nothing is sent.
pub fn ask(server: SocketAddr, to: &str) -> (SmtpReply, Duration) {
    let mut raw = Raw::hello(server);
    assert_eq!(raw.say("MAIL FROM:<s@sender.test>").0, 250);
    let sent = Instant::now();
    let said = raw.say(&format!("RCPT TO:<{to}>"));
    (said, sent.elapsed())
}

/// The replies to RCPTs that are sent all at once, and how long after that each came.
pub fn ask_pipelined(server: SocketAddr, to: &[String]) -> Vec<(SmtpReply, Duration)> {
    let mut raw = Raw::hello(server);
    let commands: String = to.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
    let sent = Instant::now();
    raw.send(format!("MAIL FROM:<s@sender.test>\r\n{commands}").as_bytes());
    assert_eq!(raw.reply().0, 250);
    to.iter().map(|_| (raw.reply(), sent.elapsed())).collect()
}
