//! Row 8: mail users and contacts, whose mail goes to their target address (DESIGN section 5, "target addresses").

use super::accepted_domain::Accepted;
use super::ask::Owner;
use super::verdict::{Reason, RouteKind, Verdict};
use super::walk::{Decided, Exit, Walk};
use crate::smtp::address::Address;
use crate::smtp::reply;

/// The most targets that are followed for one recipient.
const STEPS: usize = 10;

/// The result of following a target.
pub(super) enum Followed<'a> {
    /// It is in another accepted domain, where the decision goes on with this address.
    To(&'a Address, Accepted<'a>),
    Verdict(Verdict),
}

impl<'a> Walk<'a> {
    /// Follows the target of an entry. `domain` is the domain of the entry's address.
    pub(super) fn target(
        &mut self,
        owner: Owner<'a>,
        target: &'a Address,
        domain: &Accepted<'a>,
    ) -> Decided<Followed<'a>> {
        let own = owner.address.domain() == target.domain();
        if let Some(connector) = &owner.recipient.send_connector {
            let says = format!("its target is {target}: to {connector}, which the entry names");
            return self.out(
                owner,
                Exit { row: 8, connector, to: target.clone(), way: RouteKind::Redirected, says: says.into() },
            );
        }
        let accepted = self.table.accepted.find(target.domain());
        let covering = match accepted {
            Some(in_domain) if !own => return self.again(owner, target, in_domain),
            // `*` never matches an accepted domain. A shared domain has its relay connector here.
            Some(_) => self.table.spaces.for_accepted(target.domain()),
            None => {
                if let Some(refused) = self.recently_removed(target) {
                    return Ok(Followed::Verdict(refused));
                }
                self.table.spaces.for_foreign(target.domain())
            }
        };
        if let Some(connector) = covering {
            let says = format!("its target is {target}: to {connector} by its address space");
            return self.out(
                owner,
                Exit { row: 8, connector, to: target.clone(), way: RouteKind::Redirected, says: says.into() },
            );
        }
        let Some((connector, why)) = owner.connector(domain) else {
            return Ok(Followed::Verdict(self.no_connector(8, domain)));
        };
        let says =
            format!("its target is {target}, which no address space covers: to {connector}, {why}, which forwards it");
        self.leave(Exit { row: 8, connector, to: owner.address, way: RouteKind::Resolved, says: says.into() })
            .map(Followed::Verdict)
    }

    /// Sends the recipient out to the target.
    fn out(&mut self, owner: Owner<'a>, exit: Exit<'a>) -> Decided<Followed<'a>> {
        self.followed.push(owner.address);
        self.leave(exit).map(Followed::Verdict)
    }

    /// Continues with a target in another accepted domain.
    fn again(&mut self, owner: Owner<'a>, to: &'a Address, domain: Accepted<'a>) -> Decided<Followed<'a>> {
        self.followed.push(owner.address);
        if self.followed.contains(to) {
            let circle: Vec<&str> = self.followed.iter().map(Address::as_str).collect();
            let says = format!("the target addresses go in a circle: {}, and back to {to}", circle.join(", "));
            return self.refuse_for_good(8, reply::ROUTING_LOOP, says).map(Followed::Verdict);
        }
        if self.followed.len() > STEPS {
            let says = format!("more than {STEPS} target addresses in a row, the last one {to}: shorten the chain");
            return Ok(Followed::Verdict(self.refuse(8, reply::TRY_AGAIN, says)));
        }
        self.reasons.push(Reason::Note(format!("its target is {to}, in accepted domain {}", domain.pattern)));
        Ok(Followed::To(to, domain))
    }
}
