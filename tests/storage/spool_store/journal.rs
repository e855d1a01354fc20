//! What `workload` told, and whether a recovered spool agrees with it.

use std::collections::{HashMap, HashSet};

use fingerpost::message::queue_id::QueueId;
use fingerpost::spool::Spool;
use fingerpost::spool::entry::{Entry, RecipientState};

use crate::spool_store::fixture::{entry, is_whole};

/// A message as the journal names it.
#[derive(Debug, Clone)]
struct Told {
    id: QueueId,
    size: u64,
    recipients: usize,
}

#[derive(Debug)]
struct Finish {
    id: QueueId,
    recipient: usize,
    report: Option<Told>,
    acknowledged: bool,
}

/// All that was begun and all that was acknowledged.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    records: Vec<(Vec<Told>, bool)>,
    finishes: Vec<Finish>,
}

impl Told {
    fn read(text: &str) -> Self {
        let parts: Vec<_> = text.split(':').collect();
        Self { id: parts[0].parse().unwrap(), size: parts[1].parse().unwrap(), recipients: parts[2].parse().unwrap() }
    }
}

impl Journal {
    /// Adds one line.
    pub(crate) fn read(&mut self, line: &str) {
        let words: Vec<_> = line.split(' ').collect();
        match words.as_slice() {
            ["accept", messages @ ..] => self.records.push((messages.iter().map(|m| Told::read(m)).collect(), false)),
            ["accepted", id] => {
                let id = id.parse().unwrap();
                let record = self.records.iter_mut().rev().find(|(told, _)| told[0].id == id).unwrap();
                record.1 = true;
            }
            ["finish", id, recipient, report] => self.finishes.push(Finish {
                id: id.parse().unwrap(),
                recipient: recipient.parse().unwrap(),
                report: Some(Told::read(report)),
                acknowledged: false,
            }),
            ["end", id, recipient] => self.finishes.push(Finish {
                id: id.parse().unwrap(),
                recipient: recipient.parse().unwrap(),
                report: None,
                acknowledged: false,
            }),
            ["finished", id, recipient] => {
                let (id, recipient) = (id.parse().unwrap(), recipient.parse::<usize>().unwrap());
                let finish = self.finishes.iter_mut().rev().find(|f| f.id == id && f.recipient == recipient).unwrap();
                finish.acknowledged = true;
            }
            _ => {}
        }
    }

    /// How many messages were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        let records = self.records.iter().filter(|(_, acknowledged)| *acknowledged).map(|(told, _)| told.len());
        records.sum::<usize>() + self.finishes.iter().filter(|finish| finish.acknowledged).count()
    }

    /// Whether the spool holds everything that was acknowledged and nothing that was never begun, each record whole
    /// or not at all.
    pub(crate) fn check(&self, spool: &dyn Spool, recovered: &[Entry]) -> Result<(), String> {
        let found: HashMap<QueueId, &Entry> = recovered.iter().map(|entry| (entry.id, entry)).collect();
        let mut finishes: HashMap<QueueId, Vec<&Finish>> = HashMap::new();
        self.finishes.iter().for_each(|finish| finishes.entry(finish.id).or_default().push(finish));
        let mut known = HashSet::new();
        for (told, acknowledged) in &self.records {
            let may_be_over = |told: &Told| finishes.get(&told.id).map_or(0, Vec::len) >= told.recipients;
            let is_over = |told: &Told| {
                let acknowledged = |finish: &&&Finish| finish.acknowledged;
                finishes.get(&told.id).map_or(0, |all| all.iter().filter(acknowledged).count()) >= told.recipients
            };
            let all = *acknowledged || told.iter().any(|told| found.contains_key(&told.id));
            for told in told {
                known.insert(told.id).then_some(()).ok_or(format!("{} was given out twice", told.id))?;
                let finishes = finishes.get(&told.id).map_or(&[][..], Vec::as_slice);
                match found.get(&told.id) {
                    Some(_) if is_over(told) => return Err(format!("{} is over and would be sent again", told.id)),
                    Some(entry) => told.check(spool, entry, finishes)?,
                    None if all && !may_be_over(told) => return Err(format!("{} is lost", told.id)),
                    None => {}
                }
            }
        }
        for finish in &self.finishes {
            let Some(told) = &finish.report else { continue };
            known.insert(told.id);
            let done = found
                .get(&finish.id)
                .is_none_or(|e| matches!(e.recipients[finish.recipient].state, RecipientState::Done(_)));
            match found.get(&told.id) {
                Some(report) if done => told.check(spool, report, &[])?,
                Some(_) => return Err(format!("the report {} without its outcome", told.id)),
                None if done => return Err(format!("the outcome of {} without its report", finish.id)),
                None if finish.acknowledged => return Err(format!("the outcome of {} is lost", finish.id)),
                None => {}
            }
        }
        match recovered.iter().find(|entry| !known.contains(&entry.id)) {
            Some(entry) => Err(format!("{} was never begun", entry.id)),
            None => Ok(()),
        }
    }
}

impl Told {
    /// Whether a message is as it was told, and its recipients as they may be.
    fn check(&self, spool: &dyn Spool, found: &Entry, finishes: &[&Finish]) -> Result<(), String> {
        let mut expected = entry(self.id, self.size, self.recipients);
        for (n, recipient) in found.recipients.iter().enumerate() {
            let is_done = matches!(recipient.state, RecipientState::Done(_));
            let finish = finishes.iter().find(|finish| finish.recipient == n);
            match finish {
                None if is_done => return Err(format!("{} recipient {n} is over by itself", self.id)),
                Some(finish) if finish.acknowledged && !is_done => {
                    return Err(format!("{} recipient {n} would be sent again", self.id));
                }
                _ => {}
            }
            expected.recipients[n].state = recipient.state.clone();
        }
        if *found != expected {
            return Err(format!("{} has changed", self.id));
        }
        if found.is_finished() {
            return Err(format!("{} is finished and still there", self.id));
        }
        is_whole(spool, found).then_some(()).ok_or(format!("the content of {} is not whole", self.id))
    }
}
