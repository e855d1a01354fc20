//! Strangers who are in the way of others' mail, each in a thread and from an address of his own.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::slow_but_healthy::fixture::{HealthySystems, USERS, client};
use support::senders::{Raw, SmtpReply};
use support::wait_until;

/// How an upload comes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ContentCommand {
    Data,
    /// In one chunk (RFC 3030).
    Bdat,
}

/// Octets of an upload, and of a piece; ten pieces go a second.
pub(crate) const UPLOAD: usize = 480_000;
const PIECE: usize = 6_000;

/// A few of them. They end with `end`.
pub(crate) struct Strangers {
    heard: Vec<Arc<Mutex<Vec<SmtpReply>>>>,
    over: Vec<Sender<()>>,
    threads: Vec<JoinHandle<()>>,
}

/// What one stranger works with.
struct Stranger {
    raw: Raw,
    heard: Arc<Mutex<Vec<SmtpReply>>>,
    over: Receiver<()>,
}

impl Strangers {
    /// Each tries out names on the secondary's side, one after another.
    pub(crate) fn harvest(systems: &HealthySystems, count: usize) -> Self {
        Self::start(systems.node().smtp, count, |mut stranger, number| {
            stranger.raw.say("MAIL FROM:<harvester@outside.test>");
            for name in 0.. {
                stranger.hear(&format!("RCPT TO:<x{number}.{name}@contoso.test>"));
                if stranger.is_over(Duration::from_millis(100)) {
                    return;
                }
            }
        })
    }

    /// Each says MAIL, RCPT for a healthy recipient, and NOOP every second; they take the sides in turn.
    pub(crate) fn talk(systems: &HealthySystems, count: usize) -> Self {
        Self::start(systems.node().smtp, count, |mut stranger, number| {
            stranger.raw.say("MAIL FROM:<talker@outside.test>");
            stranger.hear(&format!("RCPT TO:<{}>", recipient(number)));
            while !stranger.is_over(Duration::from_secs(1)) {
                stranger.hear("NOOP");
            }
        })
    }

    /// Each asks for one address, again and again.
    pub(crate) fn ask(systems: &HealthySystems, count: usize, address: &'static str) -> Self {
        Self::start(systems.node().smtp, count, move |mut stranger, _| {
            while !stranger.is_over(Duration::from_millis(100)) {
                stranger.raw.say("MAIL FROM:<ann@outside.test>");
                stranger.hear(&format!("RCPT TO:<{address}>"));
                stranger.raw.say("RSET");
            }
        })
    }

    /// Each sends one large message slowly; the sides are taken in turn. What is not said to be well ends it.
    pub(crate) fn upload(systems: &HealthySystems, count: usize, how: ContentCommand) -> Self {
        Self::start(systems.node().smtp, count, move |mut stranger, number| {
            stranger.raw.say("MAIL FROM:<upload@outside.test>");
            if stranger.hear(&format!("RCPT TO:<{}>", recipient(number))) != 250 {
                return;
            }
            let line = "A line of a message as people write them: neither long nor short.\r\n";
            let body = line.repeat(UPLOAD / line.len());
            let message = format!("Message-ID: <upload-{number}@outside.test>\r\n\r\n{body}");
            match how {
                ContentCommand::Data if stranger.hear("DATA") != 354 => return,
                ContentCommand::Data => {}
                ContentCommand::Bdat => stranger.raw.send(format!("BDAT {} LAST\r\n", message.len()).as_bytes()),
            }
            for piece in message.as_bytes().chunks(PIECE) {
                if stranger.is_over(Duration::from_millis(100)) {
                    return;
                }
                stranger.raw.send(piece);
            }
            if let ContentCommand::Data = how {
                stranger.raw.send(b".\r\n");
            }
            let last = stranger.raw.reply();
            stranger.heard.lock().unwrap().push(last);
        })
    }

    fn start(server: SocketAddr, count: usize, does: impl Fn(Stranger, usize) + Clone + Send + 'static) -> Self {
        let mut strangers = Self { heard: Vec::new(), over: Vec::new(), threads: Vec::new() };
        for number in 0..count {
            let (sender, over) = channel();
            let heard = Arc::new(Mutex::new(Vec::new()));
            strangers.heard.push(heard.clone());
            strangers.over.push(sender);
            let does = does.clone();
            strangers.threads.push(std::thread::spawn(move || {
                let raw = Raw::hello_from(client(20 + number), server);
                does(Stranger { raw, heard, over }, number);
            }));
        }
        strangers
    }

    /// How many replies he has heard who has heard fewest.
    pub(crate) fn fewest_heard(&self) -> usize {
        self.heard.iter().map(|heard| heard.lock().unwrap().len()).min().unwrap_or(0)
    }

    /// Waits until they have come to their end by themselves; all that they heard.
    pub(crate) fn finish(self, limit: Duration) -> Vec<SmtpReply> {
        wait_until("the strangers' end", limit, || self.threads.iter().all(JoinHandle::is_finished));
        self.end()
    }

    /// Ends them; all that they heard.
    pub(crate) fn end(self) -> Vec<SmtpReply> {
        drop(self.over);
        self.threads.into_iter().for_each(|thread| thread.join().unwrap());
        self.heard.iter().flat_map(|heard| heard.lock().unwrap().clone()).collect()
    }
}

impl Stranger {
    /// Says it and notes the reply; its code.
    fn hear(&mut self, command: &str) -> u16 {
        let said = self.raw.say(command);
        let code = said.0;
        self.heard.lock().unwrap().push(said);
        code
    }

    /// Whether the test says so within this time.
    fn is_over(&self, wait: Duration) -> bool {
        !matches!(self.over.recv_timeout(wait), Err(RecvTimeoutError::Timeout))
    }
}

fn recipient(number: usize) -> String {
    format!("{}{}@contoso.test", ["p", "s"][number % 2], number % USERS)
}
