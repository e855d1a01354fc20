//! Calls [`routing::decide`](crate::routing::decide), and asks the directories its questions.
//!
//! The server, the queue, `fingerpost route` and the status page all decide through a [`Resolver`]; it decides nothing
//! itself. Equal questions in progress are asked once.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::OnceCell;

use crate::directory::Directories;
use crate::lookup::{Answer, Behalf, Fresh, Freshness, Lookup, Question, Standing};
use crate::routing::decide::decide;
use crate::routing::table::Table;
use crate::routing::verdict::{Answers, Decision, Reason, Step, Verdict};
use crate::smtp::address::Address;
use crate::smtp::envelope::Origin;
use crate::smtp::reply;
use crate::time::UnixTime;

/// The most questions for one recipient (DESIGN section 5).
const QUESTIONS: usize = 32;

/// The table and the directories of one configuration.
#[derive(Clone)]
pub struct Resolver {
    table: Arc<Table>,
    directories: Arc<Directories>,
    under_way: Arc<UnderWay>,
}

impl Resolver {
    #[must_use]
    pub fn new(table: Arc<Table>, directories: Arc<Directories>) -> Self {
        Self { table, directories, under_way: Arc::default() }
    }

    #[must_use]
    pub fn table(&self) -> &Arc<Table> {
        &self.table
    }

    #[must_use]
    pub fn directories(&self) -> &Arc<Directories> {
        &self.directories
    }

    /// Decides where one recipient goes. With `freshness: Live` every directory itself is asked, as is necessary before
    /// a loop, or a next hop's "unknown recipient", is believed.
    pub async fn resolve(&self, origin: &Origin, address: &Address, freshness: Freshness, now: UnixTime) -> Decision {
        let about = About { origin, address, freshness, now, behalf: &Behalf::Ours, standing: Standing::Known };
        self.go_on(&about, Answers::default()).await
    }

    /// Decides with answers in memory only.
    ///
    /// # Errors
    /// A directory has to be asked: continue with [`Resolver::go_on`] and these answers.
    pub fn at_once(&self, about: &About<'_>) -> Result<Decision, Answers> {
        // Most mail needs one.
        let mut answers = Answers(Vec::with_capacity(1));
        self.without_asking(about, &mut answers).map_err(|_| answers)
    }

    /// Decides, with some answers already known.
    pub async fn go_on(&self, about: &About<'_>, mut answers: Answers) -> Decision {
        loop {
            let question = match self.without_asking(about, &mut answers) {
                Ok(decision) => return decision,
                Err(question) => question,
            };
            // Taken before the question is registered, so that no caller waits for another one's turn.
            let turn = match self.directories.turn(&question, about.behalf, about.standing).await {
                Ok(turn) => turn,
                Err(answer) => {
                    answers.0.push((question, answer));
                    continue;
                }
            };
            let asking = self.under_way.join(&question);
            // A caller that joins does not need its turn.
            let turn = if asking.joins { None } else { turn };
            let ask = || self.directories.ask_in_turn(&question, turn);
            let answer = asking.answer.get_or_init(ask).await.clone();
            drop(asking);
            answers.0.push(believed(question, answer));
        }
    }

    /// Decides with answers in memory.
    ///
    /// # Errors
    /// The question for a directory.
    fn without_asking(&self, about: &About<'_>, answers: &mut Answers) -> Result<Decision, Question> {
        let About { origin, address, freshness, now, .. } = *about;
        loop {
            let question = match decide(&self.table, origin, address, answers, now) {
                Step::Verdict(decision) => return Ok(decision),
                Step::Ask(_) if answers.0.len() == QUESTIONS => return Ok(undecided(address)),
                Step::Ask(question) => match freshness {
                    Freshness::Any => question,
                    Freshness::Live => Question { freshness, ..question },
                },
            };
            match self.directories.known(&question) {
                Some(answer) => answers.0.push(believed(question, answer)),
                None => return Err(question),
            }
        }
    }
}

/// The recipient, and how to decide about it.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    pub origin: &'a Origin,
    /// As received.
    pub address: &'a Address,
    /// Whether cached answers may be used.
    pub freshness: Freshness,
    pub now: UnixTime,
    pub behalf: &'a Behalf,
    /// The priority of its questions.
    pub standing: Standing,
}

/// A refusal must not rest on a cached answer that was given because the directory failed.
fn believed(question: Question, answer: Answer) -> (Question, Answer) {
    if question.freshness == Freshness::Live && answer.fresh != Fresh::Live {
        let why = "it was to be asked itself, and answered from its cache".into();
        return (question, Answer { lookup: Lookup::Unavailable(why), fresh: Fresh::Live });
    }
    (question, answer)
}

fn undecided(address: &Address) -> Decision {
    let says = format!("undecided after {QUESTIONS} questions to directories: shorten the chain of target addresses");
    let (verdict, reasons) = (Verdict::Refuse(reply::TRY_AGAIN), vec![Reason::Note(says)]);
    Decision { address: address.clone(), verdict, reasons }
}

/// Questions in progress, of all sessions.
#[derive(Default)]
struct UnderWay(Mutex<HashMap<Question, Arc<OnceCell<Answer>>>>);

/// A caller's share in a question in progress; the last one to drop it removes the question. If a caller is dropped
/// while it asks, the next waiting one asks.
struct Asking<'a> {
    under_way: &'a UnderWay,
    question: &'a Question,
    answer: Arc<OnceCell<Answer>>,
    /// Whether another caller asks it.
    joins: bool,
}

impl UnderWay {
    fn join<'a>(&'a self, question: &'a Question) -> Asking<'a> {
        let mut questions = self.lock();
        let (answer, joins) = match questions.get(question) {
            // An answer is only for callers that waited for it; later ones ask again.
            Some(answer) if !answer.initialized() => (answer.clone(), true),
            _ => {
                let answer = Arc::<OnceCell<Answer>>::default();
                questions.insert(question.clone(), answer.clone());
                (answer, false)
            }
        };
        Asking { under_way: self, question, answer, joins }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Question, Arc<OnceCell<Answer>>>> {
        // No code under the lock can panic.
        self.0.lock()
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut questions = self.under_way.lock();
        let is_ours = questions.get(self.question).is_some_and(|answer| Arc::ptr_eq(answer, &self.answer));
        // Two references are the map's and ours: no other caller waits.
        if is_ours && (self.answer.initialized() || Arc::strong_count(&self.answer) == 2) {
            questions.remove(self.question);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use tokio::sync::Semaphore;

    use super::*;
    use crate::directory::{AnswerFuture, Directory};
    use crate::lookup::{Kind, Recipient};
    use crate::routing::accepted_domain::{AcceptedDomain, AcceptedDomains, DomainType};
    use crate::routing::table::{DirectoryRules, DomainPattern, DomainSet, PlusAddressing, Proof};
    use crate::smtp::domain::Domain;

    /// Answers `cached` to any question and `live` to live ones, once there is a permit.
    struct Double {
        asked: AtomicUsize,
        permits: Semaphore,
        cached: Answer,
        live: Answer,
    }

    impl Directory for Double {
        fn ask<'a>(&'a self, question: &'a Question) -> AnswerFuture<'a> {
            Box::pin(async move {
                self.asked.fetch_add(1, SeqCst);
                let _permit = self.permits.acquire().await.unwrap();
                match question.freshness {
                    Freshness::Any => self.cached.clone(),
                    Freshness::Live => self.live.clone(),
                }
            })
        }
    }

    fn not_found(fresh: Fresh) -> Answer {
        Answer { lookup: Lookup::NotFound, fresh }
    }

    fn found(target: Option<&str>) -> Answer {
        let kind = if target.is_some() { Kind::MailUser } else { Kind::Mailbox };
        let target = target.map(address);
        let recipient =
            Recipient { kind, target, mail_server: None, send_connector: None, entry: "e".into(), rule: "r".into() };
        Answer { lookup: Lookup::Found(recipient.into()), fresh: Fresh::Live }
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn resolver(permits: usize, cached: Answer, live: Answer) -> (Resolver, Arc<Double>) {
        let domain = |name: &str| AcceptedDomain {
            pattern: DomainPattern::Exact(Domain::parse(name).unwrap()),
            kind: DomainType::Authoritative,
            deliver_to: Some("a".into()),
        };
        let rules = DirectoryRules {
            name: "ad".into(),
            domains: DomainSet::All,
            deliver_to: None,
            mailbox_servers: HashMap::new(),
            plus_addressing: PlusAddressing::Off,
            proof: Proof::Entry,
        };
        let accepted = AcceptedDomains::new(vec![domain("a.example"), domain("b.example")], HashMap::new());
        let table = Table { accepted, directories: vec![rules], ..Table::default() };
        let double = Arc::new(Double { asked: AtomicUsize::new(0), permits: Semaphore::new(permits), cached, live });
        let directories = Directories::new([("ad".into(), double.clone() as Arc<dyn Directory>)]);
        (Resolver::new(table.into(), directories.into()), double)
    }

    async fn label(resolver: &Resolver, text: &str, freshness: Freshness) -> &'static str {
        resolver.resolve(&Origin::report(), &address(text), freshness, UnixTime(0)).await.label()
    }

    #[tokio::test]
    async fn a_cached_not_found_is_asked_again_and_a_changed_answer_followed() {
        for (live, wanted, asked) in [
            (not_found(Fresh::Live), "refused", 2),
            (found(None), "resolved", 2),
            (not_found(Fresh::Cached), "deferred", 2),
        ] {
            let (resolver, double) = resolver(1, not_found(Fresh::Cached), live);
            assert_eq!(label(&resolver, "u@a.example", Freshness::Any).await, wanted);
            assert_eq!(double.asked.load(SeqCst), asked);
        }
    }

    #[tokio::test]
    async fn live_resolution_asks_nothing_but_live_questions() {
        let (resolver, double) = resolver(1, found(None), not_found(Fresh::Live));
        assert_eq!(label(&resolver, "u@a.example", Freshness::Live).await, "refused");
        assert_eq!(double.asked.load(SeqCst), 1);
    }

    #[tokio::test]
    async fn equal_questions_under_way_are_asked_once() {
        let (resolver, double) = resolver(0, found(None), found(None));
        let ask = || label(&resolver, "u@a.example", Freshness::Any);
        let permit = async { double.permits.add_permits(1) };
        let (one, two, three, ()) = tokio::join!(ask(), ask(), ask(), permit);
        assert_eq!((one, two, three), ("resolved", "resolved", "resolved"));
        assert_eq!(double.asked.load(SeqCst), 1);
        ask().await;
        assert_eq!(double.asked.load(SeqCst), 2, "an answer is not kept");
        assert!(resolver.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn an_asker_that_goes_away_leaves_nothing_behind_and_nobody_waiting() {
        let (resolver, double) = resolver(0, found(None), found(None));
        let ask = || label(&resolver, "u@a.example", Freshness::Any);
        {
            let mut first = Box::pin(ask());
            let mut second = Box::pin(ask());
            tokio::select! { biased; _ = &mut first => panic!(), _ = &mut second => panic!(), () = async {} => {} }
            drop(first);
            double.permits.add_permits(1);
            assert_eq!(second.await, "resolved");
        }
        assert_eq!(double.asked.load(SeqCst), 2);
        double.permits.forget_permits(1);
        tokio::select! { biased; _ = ask() => panic!(), () = async {} => {} }
        assert!(resolver.under_way.lock().is_empty());
    }

    #[tokio::test]
    async fn a_target_of_itself_in_another_domain_ends() {
        let (resolver, _) = resolver(1, found(Some("u@b.example")), found(Some("u@b.example")));
        let decision = resolver.resolve(&Origin::report(), &address("u@a.example"), Freshness::Any, UnixTime(0)).await;
        assert_eq!(decision.row(), Some(8), "{decision:?}");
    }
}
