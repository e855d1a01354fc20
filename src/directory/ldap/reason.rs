//! Explains to administrators why a name and password are not accepted: Active Directory has a number for it in the
//! text of result 49, as in `80090308: LdapErr: DSID-0C09041C, comment: AcceptSecurityContext error, data 52e, v4563`.

/// Windows' error codes (MS-ERREF 2.2), in hexadecimal.
const REASONS: [(&str, &str); 13] = [
    ("525", "there is no such account; check bind_dn"),
    ("52e", "the password is wrong, or bind_dn; check bind_dn and password_file"),
    (
        "52f",
        "an account restriction forbids it, such as Protected Users or an empty password; give us an account without",
    ),
    ("530", "the account's logon hours forbid it now; allow all hours"),
    ("531", "the account may only log on to other computers; take `Log On To` away"),
    ("532", "the account's password has expired; set a new one that does not expire, and write it to password_file"),
    ("533", "the account is disabled; enable it"),
    ("534", "the account has not the right to log on in this way; see `Access this computer from the network`"),
    ("568", "the account is in too many groups"),
    ("569", "the account has not the right to log on in this way; see `Access this computer from the network`"),
    ("701", "the account has expired; set its end to `Never`"),
    ("773", "the password must be changed at the next logon; take that away from the account, or set a new one"),
    ("775", "the account is locked; unlock it, and find out who tries wrong passwords"),
];

/// The explanation for the text of a result 49; `None`: it has no such number.
pub(super) fn of(text: &str) -> Option<&'static str> {
    let (_, behind) = text.split_once(" data ")?;
    let code: String = behind.chars().take_while(char::is_ascii_hexdigit).collect();
    REASONS.iter().find(|(known, _)| code.trim_start_matches('0').eq_ignore_ascii_case(known)).map(|(_, words)| *words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_says_why() {
        let error = |code: &str| {
            format!(": 80090308: LdapErr: DSID-0C09041C, comment: AcceptSecurityContext error, data {code}, v4563")
        };
        for (code, words) in [
            ("52e", Some("the password is wrong")),
            ("52E", Some("the password is wrong")),
            ("525", Some("no such account")),
            ("533", Some("is disabled")),
            ("775", Some("is locked")),
            ("0775", Some("is locked")),
            ("773", Some("must be changed")),
            ("0", None),
            ("7751", None),
            ("", None),
        ] {
            assert_eq!(of(&error(code)).is_some(), words.is_some(), "{code}");
            assert!(words.is_none_or(|words| of(&error(code)).unwrap().contains(words)), "{code}");
        }
        assert_eq!(of(""), None);
        assert_eq!(of(": invalid credentials"), None);
        assert_eq!(of(": no data 52e"), of(&error("52e")));
    }
}
