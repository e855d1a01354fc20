//! Tenants of Exchange Online, and which one a message comes from.
//!
//! All tenants send with the same certificate; `X-MS-Exchange-CrossTenant-Id`, which Exchange Online writes into all
//! mail that leaves it, tells them apart. It can be trusted only on connections with that certificate. `config` parses
//! a [`Tenant`], `session` checks messages against it.

use crate::message::header;

const FIELD: &str = "X-MS-Exchange-CrossTenant-Id";

/// A tenant's id: a GUID in lower case, without braces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant(String);

/// A text that is no tenant's id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a tenant's id, such as 11111111-2222-3333-4444-555555555555: see Overview in the Entra admin center"
)]
pub struct NoTenant(String);

impl Tenant {
    /// Parses an id.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, NoTenant> {
        let parts: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let hex = parts.iter().all(|part| part.bytes().all(|byte| byte.is_ascii_hexdigit()));
        match lengths == [8, 4, 4, 4, 12] && hex {
            true => Ok(Self(text.to_ascii_lowercase())),
            false => Err(NoTenant(text.to_owned())),
        }
    }

    /// Whether the header section proves this tenant: the field is there exactly once, and its value is this id.
    #[must_use]
    pub fn sent(&self, section: &[u8]) -> bool {
        let mut values = header::values(section, FIELD);
        match (values.next(), values.next()) {
            (Some(value), None) => value.eq_ignore_ascii_case(self.0.as_bytes()),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0a1b2c3d-2222-3333-4444-555555555555";

    #[test]
    fn ids_are_guids() {
        assert_eq!(Tenant::parse(&ID.to_uppercase()), Ok(Tenant(ID.to_owned())));
        let more = format!("{ID}5");
        for wrong in [
            "",
            "contoso.onmicrosoft.com",
            "{0a1b2c3d-2222-3333-4444-555555555555}",
            &more,
            &ID[1..],
            "0a1b2c3d222233334444555555555555",
            "0a1b2c3g-2222-3333-4444-555555555555",
            "0a1b2c3d-2222-3333-4444-55555555555\u{e9}",
        ] {
            assert!(Tenant::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn one_right_field_and_no_other_says_so() {
        let tenant = Tenant::parse(ID).unwrap();
        let (upper, other) = (ID.to_uppercase(), "11111111-2222-3333-4444-555555555555");
        for (section, says) in [
            (format!("Subject: x\r\n{FIELD}: {ID}\r\n"), true),
            (format!("x-ms-exchange-crosstenant-id :\r\n\t{upper} \r\nSubject: x\r\n"), true),
            (format!("{FIELD}: {other}\r\n"), false),
            (format!("{FIELD}: {ID}\r\n{FIELD}: {ID}\r\n"), false),
            (format!("{FIELD}: {ID}\r\n{FIELD}: {other}\r\n"), false),
            (format!("{FIELD}: {other}\r\n{FIELD}: {ID}\r\n"), false),
            (format!("{FIELD}: {ID}\r\n{FIELD}:\r\n"), false),
            (format!("{FIELD}: {ID}\r{FIELD}: {ID}\n"), false),
            (format!("{FIELD}: {ID} {ID}\r\n"), false),
            (format!("{FIELD}: {ID} (x)\r\n"), false),
            (format!("{FIELD}: \"{ID}\"\r\n"), false),
            (format!("{FIELD}: {}\r\n {}\r\n", &ID[..8], &ID[8..]), false),
            (format!("{FIELD}: {}\r\n", &ID[1..]), false),
            (format!("{FIELD}:\r\n"), false),
            (format!("X-{FIELD}: {ID}\r\n{FIELD}2: {ID}\r\n"), false),
            (format!("Subject: x\r\n {FIELD}: {ID}\r\n"), false),
            (String::new(), false),
        ] {
            assert_eq!(tenant.sent(section.as_bytes()), says, "{section:?}");
        }
    }
}
