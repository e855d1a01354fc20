//! Names in certificates that a provider shares with all its customers: such a certificate proves whose server it is,
//! not whose mail it sends.
//!
//! Exchange Online shows `mail.protection.outlook.com` for every tenant (learn.microsoft.com, "Set up connectors for
//! secure mail flow with a partner organization"); large filtering and sending services do the same. `config` refuses
//! to grant rights to such a name, `session` derives no organisation from it. Pure.

/// Domains whose hosts present one certificate for all customers of a provider.
const PROVIDERS: &[&str] = &[
    "outlook.com",
    "office365.com",
    "google.com",
    "googlemail.com",
    "gmail.com",
    "mimecast.com",
    "mimecast.co.za",
    "pphosted.com",
    "ppe-hosted.com",
    "messagelabs.com",
    "symanteccloud.com",
    "barracudanetworks.com",
    "iphmx.com",
    "mailcontrol.com",
    "forcepoint.net",
    "fireeyecloud.com",
    "trendmicro.com",
    "trendmicro.eu",
    "sophos.com",
    "hornetsecurity.com",
    "antispameurope.com",
    "antispamcloud.com",
    "spamexperts.com",
    "retarus.com",
    "amazonses.com",
    "sendgrid.net",
    "mailgun.org",
    "mailgun.net",
    "mandrillapp.com",
    "mailjet.com",
    "sparkpostmail.com",
    "postmarkapp.com",
    "sendinblue.com",
    "brevo.com",
    "zoho.com",
    "zoho.eu",
    "yahoo.com",
    "yahoodns.net",
    "icloud.com",
    "fastmail.com",
    "messagingengine.com",
    "protonmail.ch",
    "emailsrvr.com",
    "secureserver.net",
    "ovh.net",
    "ionos.com",
    "kundenserver.de",
];

/// The provider's domain, if this name (in lower case, with or without a wildcard) is in one.
#[must_use]
pub fn provider(name: &str) -> Option<&'static str> {
    let base = name.strip_prefix("*.").unwrap_or(name);
    let below = |provider: &str| base.strip_suffix(provider).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    PROVIDERS.iter().copied().find(|provider| below(provider))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_all_customers_are_known() {
        for (name, shared) in [
            ("*.protection.outlook.com", true),
            ("mail.protection.outlook.com", true),
            ("outlook.com", true),
            ("*.google.com", true),
            ("eu-smtp-1.mimecast.com", true),
            ("mx0a-1.pphosted.com", true),
            ("*.contoso.com", false),
            ("myoutlook.com", false),
            ("outlook.com.contoso.com", false),
            ("", false),
        ] {
            assert_eq!(provider(name).is_some(), shared, "{name}");
        }
    }
}
