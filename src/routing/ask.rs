//! Evaluates the directories' answers about an address: several directories in order, `user+tag`, and the send
//! connector for an entry (DESIGN section 5, "several directories"). `decide` and `target` act on the [`Finding`].

use std::sync::Arc;

use super::accepted_domain::Accepted;
use super::table::{DirectoryRules, PlusAddressing, Proof};
use super::verdict::{Named, Reason};
use super::walk::{Decided, Walk};
use crate::lookup::{Fresh, Freshness, Kind, Lookup, Question, Recipient};
use crate::smtp::address::Address;
use crate::smtp::reply::{self, Reply};

/// The result of looking up an address in the directories.
pub(super) enum Finding<'a> {
    /// An entry for a mailbox, group or public folder.
    Here(Owner<'a>),
    /// An entry for a mail user or contact, with this target address.
    Elsewhere(Owner<'a>, &'a Address),
    /// All directories answered, and none has an entry with a mailbox or target.
    Nobody,
    /// No reliable answer: rows 5 and 6, or an entry that names an unknown send connector.
    Doubt(Doubt),
}

/// Why there is no reliable answer, and how it is refused.
pub(super) struct Doubt {
    pub(super) cause: Cause,
    pub(super) row: u8,
    pub(super) reply: Reply,
    pub(super) says: String,
}

/// The cause of a doubt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// A fault that is temporary, or that an operator will mend.
    Fault,
    /// The directory is a mail server that accepts every recipient; that will not change.
    AcceptsEverything,
}

/// The entry that has an address.
pub(super) struct Owner<'a> {
    pub(super) directory: &'a DirectoryRules,
    pub(super) recipient: &'a Recipient,
    /// The address to send to: without its tag where `plus_addressing` strips it.
    pub(super) address: Address,
}

impl<'a> Owner<'a> {
    /// The send connector for the entry, and which rule names it, for operators (row 7). `None`: no rule does, and the
    /// domain has no `deliver_to`.
    pub(super) fn connector(&self, domain: &Accepted<'a>) -> Option<(&'a Arc<str>, Named)> {
        let Self { directory, recipient, .. } = self;
        if let Some(connector) = &recipient.send_connector {
            return Some((connector, Named::ByEntry));
        }
        if let Some(server) = recipient.mail_server.as_ref().filter(|_| !directory.mailbox_servers.is_empty())
            && let Some(connector) = directory.mailbox_servers.get(&server.to_lowercase())
        {
            return Some((connector, Named::ForServer(server.clone())));
        }
        if let Some(connector) = &directory.deliver_to {
            return Some((connector, Named::ByDirectory(directory.name.clone())));
        }
        Some((domain.deliver_to?, Named::ByDomain))
    }
}

impl<'a> Walk<'a> {
    /// Asks the directories that resolve the domain, in order, until one decides.
    pub(super) fn find(&mut self, address: &Address) -> Decided<Finding<'a>> {
        let mut asked = false;
        for directory in self.table.directories.iter().filter(|one| one.domains.covers(address.domain())) {
            asked = true;
            match self.look_up(directory, address)? {
                Finding::Nobody => {}
                decided => return Ok(self.with_a_way(decided)),
            }
        }
        if asked {
            return Ok(Finding::Nobody);
        }
        let says = format!("no directory resolves {}: name it in a directory's `domains`", address.domain());
        Ok(doubt(5, reply::DIRECTORY_UNAVAILABLE, says))
    }

    /// Turns an entry into a doubt if it names a send connector that does not exist: a directory file is not checked
    /// against the configuration, and such mail could not be delivered.
    fn with_a_way(&self, finding: Finding<'a>) -> Finding<'a> {
        let (Finding::Here(owner) | Finding::Elsewhere(owner, _)) = &finding else { return finding };
        match &owner.recipient.send_connector {
            Some(connector) if !self.table.connectors.contains_key(connector) => {
                let says = format!("{} names send connector {connector}, which does not exist", owner.recipient.entry);
                doubt(7, reply::TRY_AGAIN, says)
            }
            Some(_) | None => finding,
        }
    }

    /// Asks one directory: the address as written, then without its tag where the directory has plus addressing.
    pub(super) fn look_up(&mut self, directory: &'a DirectoryRules, address: &Address) -> Decided<Finding<'a>> {
        let as_written = self.answer(directory, address)?;
        let finding = found(directory, address, as_written);
        if let Finding::Here(_) | Finding::Elsewhere(..) = finding {
            self.listed |= directory.proof == Proof::Entry && self.followed.is_empty();
        }
        let (Finding::Nobody, Some(plain)) = (&finding, without_tag(directory, address)) else {
            return Ok(finding);
        };
        let lookup = self.answer(directory, &plain)?;
        let sent = if directory.plus_addressing == PlusAddressing::Strip { &plain } else { address };
        Ok(found(directory, sent, lookup))
    }

    fn answer(&mut self, directory: &'a DirectoryRules, address: &Address) -> Decided<&'a Lookup> {
        let Some((question, lookup, fresh)) = self.answers.latest(&directory.name, address) else {
            let (directory, address) = (directory.name.clone(), address.clone());
            return Err(Question { directory, address, freshness: Freshness::Any });
        };
        if fresh == Fresh::Cached && self.unconfirmed.is_none() {
            self.unconfirmed = Some(question);
        }
        let (directory, address) = (directory.name.clone(), address.clone());
        self.reasons.push(Reason::Directory { directory, address, lookup: lookup.clone(), fresh });
        Ok(lookup)
    }
}

fn doubt<'a>(row: u8, reply: Reply, says: String) -> Finding<'a> {
    Finding::Doubt(Doubt { cause: Cause::Fault, row, reply, says })
}

/// Evaluates one answer. `sent` is the address to which the entry's mail would go.
fn found<'a>(directory: &'a DirectoryRules, sent: &Address, lookup: &'a Lookup) -> Finding<'a> {
    let name = &directory.name;
    let recipient = match lookup {
        Lookup::Found(recipient) => recipient,
        Lookup::NotFound => return Finding::Nobody,
        Lookup::Ambiguous(entries) => {
            let says = format!("{name} has more than one entry with this address: {}", entries.join("; "));
            return doubt(6, reply::DIRECTORY_AMBIGUOUS, says);
        }
        Lookup::AcceptsEverything(server) => {
            let says = format!("{name} cannot say who has this address: {server}");
            let (cause, reply) = (Cause::AcceptsEverything, reply::DIRECTORY_UNAVAILABLE);
            return Finding::Doubt(Doubt { cause, row: 5, reply, says });
        }
        Lookup::Held(why) => return doubt(5, reply::DIRECTORY_CHANGED, format!("{name}: {why}")),
        Lookup::Unavailable(why) => {
            let says = format!("{name} gave no clean answer, so nobody can say who has this address: {why}");
            return doubt(5, reply::DIRECTORY_UNAVAILABLE, says);
        }
    };
    let owner = Owner { directory, recipient, address: sent.clone() };
    match (recipient.kind, &recipient.target) {
        (Kind::Mailbox | Kind::Group | Kind::PublicFolder, _) => Finding::Here(owner),
        (Kind::MailUser | Kind::Contact, Some(target)) => Finding::Elsewhere(owner, target),
        // Its target address is not one of SMTP's: the organisation's own mail system has a connector for it.
        (Kind::MailUser | Kind::Contact, None) => Finding::Here(owner),
        (Kind::NoMailbox, _) => Finding::Nobody,
    }
}

/// `user@domain` for `user+tag@domain`, where the directory has plus addressing.
fn without_tag(directory: &DirectoryRules, address: &Address) -> Option<Address> {
    if directory.plus_addressing == PlusAddressing::Off {
        return None;
    }
    let quoted = address.local().starts_with('"');
    let local = if quoted { address.local_key() } else { address.local() };
    let (user, _) = local.split_once('+')?;
    Address::parse(&format!("{user}@{}", address.domain())).ok()
}
