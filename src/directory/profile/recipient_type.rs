//! `msExchRecipientTypeDetails`: Exchange's type of a recipient.
//!
//! The values are those of Exchange's `RecipientTypeDetails`, as Microsoft publishes them (see
//! `docs/directories/active-directory.md` for the sources). A type that is not in the table is ignored.

use crate::lookup::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RecipientType {
    /// Exchange's name.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether a person logs on with its account.
    pub(super) account: Account,
}

/// The account of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// A person's: if it is disabled, that person has left.
    Personal,
    /// Exchange keeps it disabled (shared and linked mailboxes, rooms), or there is none.
    DisabledByDesign,
}

/// The type with this value.
pub(super) fn of(value: u64) -> Option<RecipientType> {
    TABLE.iter().find(|(bit, ..)| *bit == value).map(|&(_, name, kind, account)| RecipientType { name, kind, account })
}

/// The type with Exchange's name.
pub(super) fn named(name: &str) -> Option<RecipientType> {
    TABLE.iter().find(|row| row.1 == name).and_then(|row| of(row.0))
}

use Account::{DisabledByDesign, Personal};
use Kind::{Contact, Group, MailUser, Mailbox, NoMailbox, PublicFolder};

const TABLE: &[(u64, &str, Kind, Account)] = &[
    (1, "UserMailbox", Mailbox, Personal),
    (1 << 1, "LinkedMailbox", Mailbox, DisabledByDesign),
    (1 << 2, "SharedMailbox", Mailbox, DisabledByDesign),
    (1 << 3, "LegacyMailbox", Mailbox, Personal),
    (1 << 4, "RoomMailbox", Mailbox, DisabledByDesign),
    (1 << 5, "EquipmentMailbox", Mailbox, DisabledByDesign),
    (1 << 6, "MailContact", Contact, DisabledByDesign),
    (1 << 7, "MailUser", MailUser, Personal),
    (1 << 8, "MailUniversalDistributionGroup", Group, DisabledByDesign),
    (1 << 9, "MailNonUniversalGroup", Group, DisabledByDesign),
    (1 << 10, "MailUniversalSecurityGroup", Group, DisabledByDesign),
    (1 << 11, "DynamicDistributionGroup", Group, DisabledByDesign),
    (1 << 12, "PublicFolder", PublicFolder, DisabledByDesign),
    (1 << 13, "SystemAttendantMailbox", Mailbox, DisabledByDesign),
    (1 << 14, "SystemMailbox", Mailbox, DisabledByDesign),
    (1 << 15, "MailForestContact", Contact, DisabledByDesign),
    (1 << 16, "User", NoMailbox, Personal),
    (1 << 17, "Contact", NoMailbox, DisabledByDesign),
    (1 << 18, "UniversalDistributionGroup", NoMailbox, DisabledByDesign),
    (1 << 19, "UniversalSecurityGroup", NoMailbox, DisabledByDesign),
    (1 << 20, "NonUniversalGroup", NoMailbox, DisabledByDesign),
    (1 << 21, "DisabledUser", NoMailbox, Personal),
    (1 << 22, "MicrosoftExchange", Mailbox, DisabledByDesign),
    (1 << 23, "ArbitrationMailbox", Mailbox, DisabledByDesign),
    (1 << 24, "MailboxPlan", NoMailbox, DisabledByDesign),
    (1 << 25, "LinkedUser", NoMailbox, DisabledByDesign),
    (1 << 28, "RoomList", Group, DisabledByDesign),
    (1 << 29, "DiscoveryMailbox", Mailbox, DisabledByDesign),
    (1 << 30, "RoleGroup", NoMailbox, DisabledByDesign),
    (1 << 31, "RemoteUserMailbox", MailUser, Personal),
    (1 << 32, "Computer", NoMailbox, DisabledByDesign),
    (1 << 33, "RemoteRoomMailbox", MailUser, DisabledByDesign),
    (1 << 34, "RemoteEquipmentMailbox", MailUser, DisabledByDesign),
    (1 << 35, "RemoteSharedMailbox", MailUser, DisabledByDesign),
    (1 << 36, "PublicFolderMailbox", Mailbox, DisabledByDesign),
    (1 << 37, "TeamMailbox", Mailbox, DisabledByDesign),
    (1 << 38, "RemoteTeamMailbox", MailUser, DisabledByDesign),
    (1 << 39, "MonitoringMailbox", Mailbox, DisabledByDesign),
    (1 << 40, "GroupMailbox", Mailbox, DisabledByDesign),
    (1 << 41, "LinkedRoomMailbox", Mailbox, DisabledByDesign),
    (1 << 42, "AuditLogMailbox", Mailbox, DisabledByDesign),
    (1 << 43, "RemoteGroupMailbox", MailUser, DisabledByDesign),
    (1 << 44, "SchedulingMailbox", Mailbox, DisabledByDesign),
    (1 << 45, "GuestMailUser", MailUser, Personal),
    (1 << 46, "AuxAuditLogMailbox", Mailbox, DisabledByDesign),
    (1 << 47, "SupervisoryReviewPolicyMailbox", Mailbox, DisabledByDesign),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// Exchange's names follow a rule; the table is compared with it, and with Microsoft's decimal values.
    #[test]
    fn every_type_has_the_kind_that_its_name_says() {
        assert_eq!(TABLE.len(), 46);
        assert!(TABLE.is_sorted_by_key(|row| row.0));
        for &(value, name, kind, _) in TABLE {
            assert!(value.is_power_of_two(), "{name}");
            let expected = match name {
                "RemoteGroupMailbox" | "MailUser" | "GuestMailUser" => MailUser,
                "MailContact" | "MailForestContact" => Contact,
                "PublicFolder" => PublicFolder,
                "MicrosoftExchange" => Mailbox,
                _ if name.starts_with("Remote") => MailUser,
                _ if name.ends_with("Mailbox") => Mailbox,
                "DynamicDistributionGroup" | "RoomList" => Group,
                _ if name.starts_with("Mail") && name.ends_with("Group") => Group,
                _ => NoMailbox,
            };
            assert_eq!(kind, expected, "{name}");
        }
        for (value, name) in [
            (1, "UserMailbox"),
            (128, "MailUser"),
            (4096, "PublicFolder"),
            (65_536, "User"),
            (2_097_152, "DisabledUser"),
            (8_388_608, "ArbitrationMailbox"),
            (268_435_456, "RoomList"),
            (536_870_912, "DiscoveryMailbox"),
            (2_147_483_648, "RemoteUserMailbox"),
            (8_589_934_592, "RemoteRoomMailbox"),
            (17_179_869_184, "RemoteEquipmentMailbox"),
            (34_359_738_368, "RemoteSharedMailbox"),
            (68_719_476_736, "PublicFolderMailbox"),
            (137_438_953_472, "TeamMailbox"),
            (274_877_906_944, "RemoteTeamMailbox"),
            (549_755_813_888, "MonitoringMailbox"),
            (1_099_511_627_776, "GroupMailbox"),
            (2_199_023_255_552, "LinkedRoomMailbox"),
            (4_398_046_511_104, "AuditLogMailbox"),
            (8_796_093_022_208, "RemoteGroupMailbox"),
            (17_592_186_044_416, "SchedulingMailbox"),
            (35_184_372_088_832, "GuestMailUser"),
        ] {
            assert_eq!(of(value).unwrap().name, name);
            assert_eq!(named(name), of(value));
        }
        assert_eq!(of(0), None);
        assert_eq!(of(3), None);
        assert_eq!(of(1 << 60), None);
    }
}
