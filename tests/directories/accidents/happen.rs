//! What happens to a directory, whichever it is, and what is to become of it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use support::wait_until;

use super::*;

/// Who is there, by number; times `u`.
const MAILBOXES: Range<usize> = 0..600;
const TYPED: Range<usize> = 600..800;
const REMOTE: Range<usize> = 800..950;
const CONTACTS: Range<usize> = 950..980;
const GROUPS: Range<usize> = 980..1_000;

/// Whose attribute may not be read any more.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Of all but the probe.
    Staffs,
    Everybodys,
}

/// What the program needs to read a server.
pub struct Login {
    pub url: String,
    pub base: &'static str,
    pub bind_dn: &'static str,
    pub password_file: PathBuf,
}

/// A directory server with Exchange's attributes.
pub trait Server {
    /// Whether what is deleted shows by itself, or in the next whole read.
    const DELETIONS_SHOW: bool;

    /// The name of an entry.
    fn dn(&self, number: usize) -> String;
    /// What a mailbox has in `homeMDB`.
    fn home(&self) -> &'static str;
    /// What an entry of that class has before anything of mail, with its name.
    fn head(&self, number: usize, class: &str) -> String;
    /// How the program reaches it and logs in.
    fn login(&self) -> Login;
    /// Its table in the configuration, with more lines.
    fn directory(&self, more: &str) -> String {
        let Login { url, base, bind_dn, password_file } = self.login();
        format!(
            "[[directory]]\nname = \"ad\"\nprofile = \"active-directory\"\nurls = [\"{url}\"]\nbase = [\"{base}\"]\n\
             bind_dn = \"{bind_dn}\"\npassword_file = \"{}\"\nprobe = \"probe@contoso.test\"\npoll = \"1s\"\n{more}\n",
            password_file.display()
        )
    }
    fn modify(&self, ldif: &str);
    fn writer(&self) -> Child;
    /// Takes the right to read an attribute; [`Server::show`] gives it back.
    fn hide(&self, attribute: &'static str, whose: Whose);
    fn show(&self);
}

fn times(range: Range<usize>, u: usize) -> Range<usize> {
    range.start * u..range.end * u
}

/// An entry as Exchange leaves it.
fn entry(server: &impl Server, number: usize, class: &str, lines: &str) -> String {
    let [first, second] = addresses_of(number);
    format!(
        "{}mail: {first}\nproxyAddresses: SMTP:{first}\nproxyAddresses: smtp:{second}\nmailNickname: u{number}\n\
         legacyExchangeDN: /o=Contoso/ou=EU/cn=Recipients/cn=u{number}\n{lines}\n",
        server.head(number, class)
    )
}

/// A mailbox of Exchange 2003, which writes no types.
pub fn mailbox(server: &impl Server, number: usize) -> String {
    entry(server, number, "user", &format!("homeMDB: {}\n", server.home()))
}

/// All of them.
pub fn everybody(of: &impl Server, u: usize) -> impl Iterator<Item = String> {
    let target = |number: usize| format!("targetAddress: SMTP:u{number}@fabrikam.test\n");
    let server = "/o=Contoso/ou=EU/cn=Configuration/cn=Servers/cn=EX1";
    let typed = format!("homeMDB: {}\nmsExchHomeServerName: {server}\nmsExchRecipientTypeDetails: 1\n", of.home());
    let typed = times(TYPED, u).map(move |number| entry(of, number, "user", &typed));
    let away = move |number, class, kind: u64| {
        entry(of, number, class, &format!("{}msExchRecipientTypeDetails: {kind}\n", target(number)))
    };
    let remote = times(REMOTE, u).map(move |number| away(number, "user", 2_147_483_648));
    let contacts = times(CONTACTS, u).map(move |number| away(number, "contact", 64));
    let groups = times(GROUPS, u).map(|number| entry(of, number, "group", "msExchRecipientTypeDetails: 256\n"));
    times(MAILBOXES, u).map(|number| mailbox(of, number)).chain(typed).chain(remote).chain(contacts).chain(groups)
}

/// The accidents one after the other; each is put right, or accepted, before the next.
pub struct Lab<S> {
    server: S,
    followed: FollowedDirectory,
    u: usize,
}

impl<S: Server> Lab<S> {
    /// With these entries, read by the program with what it shall be told besides.
    pub fn new(server: S, u: usize, more: &str) -> Self {
        let begun = Instant::now();
        let followed = FollowedDirectory::start("ad", &server.directory(more));
        measured("read", begun, &followed.command(&["stats"]));
        assert_eq!(followed.kind("mailbox"), 800 * u + 1);
        assert_eq!(
            (followed.kind("mail-user"), followed.kind("contact"), followed.kind("group")),
            (150 * u, 30 * u, 20 * u)
        );
        Self { server, followed, u }
    }

    /// A change of each of them, of the form that ldapmodify reads.
    fn change(&self, numbers: impl IntoIterator<Item = usize>, change: impl Fn(usize) -> String) {
        let change = |number: usize| format!("dn: {}\nchangetype: {}\n\n", self.server.dn(number), change(number));
        self.server.modify(&numbers.into_iter().map(change).collect::<String>());
    }

    /// New mailboxes.
    fn create(&self, numbers: impl IntoIterator<Item = usize>) {
        let add = |number: usize| mailbox(&self.server, number).replacen('\n', "\nchangetype: add\n", 1);
        self.server.modify(&numbers.into_iter().map(add).collect::<String>());
    }

    fn delete(&self, numbers: impl IntoIterator<Item = usize>) {
        self.change(numbers, |_| "delete".to_owned());
        if !S::DELETIONS_SHOW {
            // As the hourly read would.
            self.followed.refresh();
        }
    }

    fn wipe(&self, numbers: impl IntoIterator<Item = usize>) {
        self.change(numbers, |_| "modify\ndelete: homeMDB".to_owned());
    }

    fn give_back(&self, numbers: impl IntoIterator<Item = usize>) {
        self.change(numbers, |_| format!("modify\nadd: homeMDB\nhomeMDB: {}", self.server.home()));
    }

    fn limit(&self) -> usize {
        20 * self.u
    }

    pub fn deletions(&self) {
        let (u, begun) = (self.u, Instant::now());
        let gone = 21 * u + 1;
        let (watch, all) = (Watch::mailboxes(&self.followed), self.followed.kind("mailbox"));
        self.delete(0..gone);
        self.followed.wait_for_held(gone);
        let at_most = all - watch.least();
        assert!(at_most <= self.limit(), "{at_most}");
        self.followed.all_go(0..gone, HERE);
        self.followed.names(0..gone, []);
        measured(
            "deletions",
            begun,
            &format!("{gone}, up to {at_most} in force before the limit, 0 afterwards, {gone} listed"),
        );
        // Half of them are meant.
        let half = gone / 2;
        self.followed.accept_only(0..half);
        assert_eq!(self.followed.held(), gone - half);
        let accepted = counted([(RELAYED, half), ("550 5.1.1", half)]);
        assert_eq!(
            self.followed.ways(&addresses(0..half)),
            accepted,
            "they are gone, and somebody has said that it is meant"
        );
        self.followed.all_go(half..gone, HERE);
        // The others are put back, under other ids.
        self.create(half..gone);
        self.followed.wait_for_held(0);
        self.create(0..half);
        self.is_as_it_was();
    }

    /// Mailboxes without a type lose their home: nobody can say what they are. At once, as fast as a script writes; while the
    /// program is stopped, so that all of them show in one look; and one by one.
    pub fn wiped_fast(&self) {
        let (begun, count) = (Instant::now(), 25 * self.u);
        let range = 100 * self.u..100 * self.u + count;
        let (watch, all) = (Watch::mailboxes(&self.followed), self.followed.kind("mailbox"));
        self.wipe(range.clone());
        self.followed.wait_for_held(count);
        let at_most = all - watch.least();
        self.is_held("wiped as fast as ldapmodify does", begun, range.clone(), at_most);
        // Half of them are meant: they are no answer, and nobody is told that they do not exist.
        let half = range.start..range.start + count / 2;
        self.followed.accept_only(half.clone());
        assert_eq!(self.followed.held(), count - half.len());
        assert_eq!(self.followed.ways(&addresses(half.clone())), counted([("451 4.4.3", 2 * half.len())]));
        self.followed.all_go(half.end..range.end, HERE);
        self.give_back(range);
        self.is_as_it_was();
    }

    pub fn wiped_between_two_looks(&mut self) {
        let (begun, count) = (Instant::now(), 25 * self.u);
        let range = 125 * self.u..125 * self.u + count;
        // What was put right is in the file once it has been read.
        self.followed.refresh();
        // In the middle of a read: what still comes of it is nothing to be warned of.
        let mut reading = Command::new(support::program());
        reading.args(["directory", "refresh", self.followed.name, "--config"]);
        reading.arg(self.followed.systems.node.path("fingerpost.toml")).stdout(Stdio::null()).stderr(Stdio::null());
        let mut reading = reading.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(100));
        self.followed.systems.node.stop();
        reading.wait().unwrap();
        let log = self.followed.systems.node.log();
        assert!(!log.contains("unmatched id"), "{log}");
        self.wipe(range.clone());
        self.followed.systems.node.start();
        let watch = Watch::mailboxes(&self.followed);
        self.followed.wait_for_held(count);
        let at_most = 800 * self.u + 1 - watch.least();
        assert_eq!(at_most, 0);
        self.is_held("wiped while the program was stopped", begun, range.clone(), at_most);
        self.give_back(range);
        self.is_as_it_was();
    }

    pub fn wiped_slowly(&self, a_second: usize) {
        let (begun, count) = (Instant::now(), 25 * self.u);
        let range = 150 * self.u..150 * self.u + count;
        let (watch, all) = (Watch::mailboxes(&self.followed), self.followed.kind("mailbox"));
        let some = self.limit() / 2 + 1;
        let mut script = self.server.writer();
        let mut pipe = script.stdin.take().unwrap();
        for (number, at) in range.clone().zip(1_u32..) {
            write!(pipe, "dn: {}\nchangetype: modify\ndelete: homeMDB\n\n", self.server.dn(number)).unwrap();
            pipe.flush().unwrap();
            if usize::try_from(at).unwrap() == some {
                // However busy the machine is.
                wait_until("the first ones are in force", LATER, || self.followed.kind("mailbox") + some <= all);
            }
            let due = Duration::from_secs(1) / u32::try_from(a_second).unwrap() * at;
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
        drop(pipe);
        assert!(script.wait().unwrap().success());
        self.followed.wait_for_held(count);
        let at_most = all - watch.least();
        assert!(at_most > self.limit() / 2, "one by one: {at_most}");
        self.is_held(&format!("wiped {a_second} a second"), begun, range.clone(), at_most);
        self.give_back(range);
        self.is_as_it_was();
    }

    /// Nobody of these has been turned around, and the list has all of them.
    fn is_held(&self, what: &str, begun: Instant, range: Range<usize>, at_most: usize) {
        assert!(at_most <= self.limit(), "{what}: {at_most}");
        let seconds = begun.elapsed().as_secs_f64();
        self.followed.all_go(range.clone(), HERE);
        self.followed.names(range.clone(), []);
        let listed = range.len();
        eprintln!("{what}: up to {at_most} in force before the limit, 0 afterwards, {listed} listed; {seconds:.1} s");
    }

    pub fn moved(&self) {
        let (u, begun) = (self.u, Instant::now());
        // As many rightly as are no accident yet, and a few wrongly.
        let wrong = (u / 5).max(2);
        let rightly = 200 * u..220 * u - wrong / 2;
        let wrongly = rightly.end..rightly.end + wrong;
        let (with_mail, back) = (rightly.start..207 * u, 207 * u..wrongly.end);
        let half = back.start..back.start + back.len() / 2;
        let to = |host: &'static str| {
            move |n: usize| format!("modify\ndelete: homeMDB\n-\nadd: targetAddress\ntargetAddress: SMTP:u{n}@{host}")
        };
        let home =
            |_: usize| format!("modify\ndelete: targetAddress\n-\nadd: homeMDB\nhomeMDB: {}", self.server.home());
        self.change(rightly.clone(), to("fabrikam.test"));
        wait_until("they are moved", LATER, || self.followed.kind("mailbox") == 800 * u + 1 - rightly.len());
        self.followed.all_go(rightly.clone(), AWAY);
        self.followed.mail_for(&with_mail.clone().map(|number| addresses_of(number)[0].clone()).collect::<Vec<_>>());
        self.change(wrongly.clone(), to("wrong.test"));
        let all = rightly.len() + wrong;
        self.followed.wait_for_held(all);
        self.followed.all_go(with_mail.clone(), AWAY);
        self.followed.all_go(back.clone(), HERE);
        self.followed.names(back.clone(), with_mail.clone());
        let (moved, mailed) = (rightly.len(), with_mail.len());
        let words = format!(
            "{moved} rightly ({mailed} had mail there), {wrong} wrongly: {mailed} stay moved, {all} listed, {mailed} apart"
        );
        measured("moved", begun, &words);
        self.followed.accept_only(half.clone());
        assert_eq!(self.followed.held(), all - half.len());
        self.followed.all_go(with_mail.start..half.end, AWAY);
        self.followed.all_go(half.end..back.end, HERE);
        self.followed.names(half.end..back.end, with_mail.clone());
        self.change(half.end..back.end, home);
        self.followed.wait_for_held(0);
        self.followed.expect(half.end - with_mail.start);
        self.change(with_mail.start..half.end, home);
        self.is_as_it_was();
        self.followed.expect(0);
    }

    /// Mailboxes for people whom the other side serves: few of so many alone, but they count with others.
    pub fn created_for_the_other_side(&self) {
        let (u, begun) = (self.u, Instant::now());
        let new = 2_000 * u..2_003 * u;
        let gone = 300 * u..317 * u + 1;
        let first: Vec<String> = new.clone().map(|number| addresses_of(number)[0].clone()).collect();
        self.followed.mail_for(&first);
        self.create(new.clone());
        wait_until("they are used", LATER, || self.followed.kind("mailbox") == 800 * u + 1 + new.len());
        self.followed.all_go(new.clone(), HERE);
        self.delete(gone.clone());
        self.followed.wait_for_held(20 * u + 1);
        self.followed.all_go(gone.clone(), HERE);
        // What would be refused the directory is asked about itself: nobody had that address, and nobody is turned.
        let as_before = counted([(RELAYED, new.len()), (HERE, new.len())]);
        assert_eq!(self.followed.ways(&addresses(new.clone())), as_before);
        self.followed.names(gone.clone().chain(new.clone()), []);
        measured(
            "created",
            begun,
            &format!("{} for the other side, {} deleted: all {} held and listed", new.len(), gone.len(), 20 * u + 1),
        );
        let half = new.start..new.start + new.len() / 2;
        self.followed.accept_only(half.clone());
        self.followed.all_go(half.clone(), HERE);
        let others = addresses(half.end..new.end);
        assert_eq!(self.followed.ways(&others), counted([(RELAYED, others.len() / 2), (HERE, others.len() / 2)]));
        self.create(gone);
        self.delete(half.end..new.end);
        self.followed.wait_for_held(0);
        self.followed.expect(half.len());
        self.delete(half);
        self.is_as_it_was();
        self.followed.expect(0);
    }

    pub fn target_address_withdrawn(&self) {
        let (u, begun) = (self.u, Instant::now());
        let concerned = times(REMOTE.start..CONTACTS.end, u);
        self.server.hide("targetAddress", Whose::Staffs);
        self.followed.refresh();
        assert_eq!((self.followed.held(), self.followed.odd()), (concerned.len(), concerned.len()));
        self.followed.all_go(concerned.clone(), AWAY);
        self.followed.names(concerned.clone(), []);
        measured("targetAddress withdrawn", begun, &format!("0 turned, {} listed", concerned.len()));
        let half = concerned.start..concerned.start + concerned.len() / 2;
        self.followed.accept_only(half.clone());
        assert_eq!(self.followed.ways(&addresses(half.clone())), counted([("451 4.4.3", 2 * half.len())]));
        self.followed.all_go(half.end..concerned.end, AWAY);
        self.server.show();
        self.followed.refresh();
        assert_eq!((self.followed.held(), self.followed.odd()), (0, 0));
        self.followed.all_go(concerned, AWAY);
    }

    /// Of all of them each this many.
    fn step(&self) -> usize {
        (7 * self.u / 10).max(5)
    }

    /// Some of every kind, from the first to the last.
    fn some(&self) -> (Vec<usize>, Vec<usize>) {
        let u = self.u;
        let away = times(REMOTE.start..CONTACTS.end, u);
        (0..ALL * u).step_by(self.step()).partition(|number| !away.contains(number))
    }

    /// From all but the probe: nothing turns while it is held, and whoever accepts it has no answers instead of wrong ones.
    pub fn proxy_addresses_withdrawn(&mut self) {
        let (u, begun) = (self.u, Instant::now());
        let (here, away) = self.some();
        let as_it_is = |followed: &FollowedDirectory| {
            followed.all_go(here.iter().copied(), HERE);
            followed.all_go(away.iter().copied(), AWAY);
        };
        self.server.hide("proxyAddresses", Whose::Staffs);
        self.followed.refresh();
        assert_eq!((self.followed.held(), self.followed.odd()), (ALL * u, ALL * u));
        as_it_is(&self.followed);
        self.followed.names(0..ALL * u, []);
        // Asked itself, the directory has no such address; it had.
        for number in [0, ALL * u / 2, ALL * u - 1] {
            let said = self.followed.command(&["lookup", &addresses_of(number)[1]]);
            assert!(said.contains("unavailable:") && said.contains("proxyAddresses"), "{said}");
        }
        measured("proxyAddresses withdrawn", begun, &format!("0 turned, {} listed", ALL * u));
        let (half, others): (Vec<usize>, Vec<usize>) =
            here.iter().partition(|number| (*number / self.step()).is_multiple_of(2));
        self.followed.accept_only(half.iter().copied());
        assert_eq!(self.followed.ways(&addresses(half.iter().copied())), counted([("451 4.4.3", 2 * half.len())]));
        self.followed.all_go(others, HERE);
        // Somebody takes all of it: from then on there is no answer, over a restart and another read as well.
        self.followed.accept_all();
        let all: Vec<String> = addresses(here.iter().chain(&away).copied());
        let no_answer = counted([("451 4.4.3", all.len())]);
        assert_eq!(self.followed.ways(&all), no_answer, "accepted");
        self.followed.refresh();
        assert_eq!(self.followed.ways(&all), no_answer, "read again");
        self.followed.systems.node.stop();
        self.followed.systems.node.start();
        self.followed.wait_for_read();
        assert_eq!(self.followed.ways(&all), no_answer, "started again");
        let said = self.followed.replies(&all);
        measured("proxyAddresses withdrawn, and accepted", begun, &format!("of {} addresses {said:?}", all.len()));
        assert_eq!(said, BTreeMap::from([(451, all.len())]));
        self.server.show();
        self.followed.refresh();
        assert_eq!((self.followed.held(), self.followed.odd()), (0, 0));
        as_it_is(&self.followed);
    }

    /// From the probe as well: nothing that is read is believed, and nobody is unknown.
    pub fn proxy_addresses_withdrawn_everywhere(&self) {
        let begun = Instant::now();
        let (here, away) = self.some();
        self.server.hide("proxyAddresses", Whose::Everybodys);
        let said = self.followed.command(&["refresh", self.followed.name]);
        assert!(said.contains("the probe probe@contoso.test"), "{said}");
        assert_eq!(self.followed.held(), 0);
        self.followed.all_go(here.iter().copied(), HERE);
        self.followed.all_go(away.iter().copied(), AWAY);
        let nobody = ["nobody@contoso.test".to_owned(), "nobody@contoso.example".to_owned()];
        assert_eq!(self.followed.ways(&nobody), counted([("451 4.4.3", 2)]));
        measured("proxyAddresses withdrawn from the probe too", begun, "0 turned, nobody is unknown");
        self.server.show();
        self.followed.refresh();
        wait_until("it is well again", LATER, || {
            self.followed.ways(&nobody) == counted([(RELAYED, 1), ("550 5.1.1", 1)])
        });
    }

    /// By nobody who is concerned by what comes next.
    fn is_as_it_was(&self) {
        let all = 800 * self.u + 1;
        wait_until("it is as it was", LATER, || self.followed.kind("mailbox") == all && self.followed.held() == 0);
    }
}
