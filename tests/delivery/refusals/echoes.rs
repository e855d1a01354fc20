//! Whoever chooses an address, a name or what he says in HELO does not choose what a refusal means.

use fingerpost::delivery::refusal::read::{Transaction, read};
use fingerpost::delivery::refusal::{Step, rows, words::Words};
use fingerpost::smtp::reply::Reply;
use proptest::prelude::*;

use super::{cases, parsed, shown};

/// Replies with a place for an echo, and the same without one.
const REPLIES: &[&str] = &[
    "550 5.1.1 {}: nobody is called so",
    "550 {}: nobody is called so",
    "550 nobody is called {}",
    "554 5.7.1 {} is not liked here",
    "450 4.7.1 {} may come back",
    "451 {} may come back",
    "501 5.5.4 {} is odd, says this parameter",
    "553 {} (#5.1.1)",
];

/// How a phrase comes into a reply: what the client said, and how it is printed.
fn forms(phrase: &str) -> Vec<(String, String)> {
    let joined = |with: &str| phrase.split(' ').collect::<Vec<_>>().join(with);
    let said = |said: String, printed: &str| (said.clone(), printed.replace("{}", &said));
    let quoted = format!("\"{phrase}\"@contoso.test");
    let mut forms = vec![
        said(quoted.clone(), "<{}>"),
        said(quoted.clone(), "{}"),
        // qmail drops the quotes; others print the local part alone, or cut long ones off.
        (quoted.clone(), format!("{phrase}@contoso.test")),
        (quoted.clone(), phrase.to_uppercase()),
        (format!("\"{phrase} and more\"@contoso.test"), format!("<\"{phrase} and")),
        (format!("\"x {phrase} y\"@contoso.test"), format!("x {phrase} y@contoso.test")),
        (phrase.to_owned(), phrase.to_owned()),
        (String::new(), format!("<{phrase}>")),
        (String::new(), format!("[{phrase}]")),
        (String::new(), format!("({phrase})")),
        (String::new(), format!("\"{phrase}\"")),
        (String::new(), format!("\"{phrase}\"@contoso.test")),
        (String::new(), format!("http://evil.test/{}", joined("/"))),
        (String::new(), format!("https://[2001:db8::9]/{}?{}", joined("/"), joined("&"))),
        (String::new(), format!("{}.evil.test", joined("."))),
        (String::new(), format!("{}.evil.test", joined("-"))),
        (String::new(), joined("-")),
        (String::new(), joined("_")),
    ];
    if !phrase.contains('\'') {
        forms.push((String::new(), format!("'{phrase}'")));
        forms.push((String::new(), format!("`{phrase}'")));
    }
    for with in [".", "-", "_", "+", "="] {
        let local = format!("{}@contoso.test", joined(with));
        forms.push(said(local.clone(), "<{}>"));
        forms.push(said(local.clone(), "{}"));
        // Domino looks for `relay_access_denied` as a name with spaces.
        forms.push((local, phrase.to_owned()));
    }
    forms
}

#[test]
fn no_phrase_of_any_row_can_be_echoed_into_a_refusal() {
    let mut tried = 0;
    let mut wrong = Vec::new();
    let nobody = Transaction::default();
    let plain = |template: &str| shown(&read(Step::Rcpt, &parsed(&template.replace("{}", "<al@b.test>")), &nobody));
    let plain: Vec<(&str, String)> = REPLIES.iter().map(|template| (*template, plain(template))).collect();
    for phrase in rows::all().flat_map(rows_phrases) {
        for (said, printed) in forms(phrase) {
            let transaction = Transaction { said: &[&said, "chris@fabrikam.test"], ..Transaction::default() };
            for (template, plain) in &plain {
                let wire = template.replace("{}", &printed);
                let echoed = shown(&read(Step::Rcpt, &parsed(&wire), &transaction));
                tried += 1;
                if echoed != *plain {
                    wrong.push(format!("{wire} (said {said:?}): {echoed}, not {plain}"));
                }
            }
        }
    }
    assert!(tried > 10_000, "only {tried} tried");
    assert!(wrong.is_empty(), "{} of {tried}:\n{}", wrong.len(), wrong[..wrong.len().min(40)].join("\n"));
}

fn rows_phrases(row: &'static fingerpost::delivery::refusal::row::Row) -> impl Iterator<Item = &'static str> {
    row.phrases()
}

#[test]
fn phrases_are_as_words_are() {
    for phrase in rows::all().flat_map(rows_phrases) {
        let reply = Reply::bare(550, phrase.to_owned().into());
        assert!(Words::of(&reply, &[]).say(phrase), "`{phrase}` can never be found");
        assert!(phrase.contains(' '), "`{phrase}`: one word alone could be a local part");
    }
}

/// What a server may repeat: none of it is an IP address or a name of ours.
fn echo() -> impl Strategy<Value = String> {
    let phrases: Vec<&'static str> = rows::all().flat_map(rows_phrases).collect();
    let words = prop::sample::select(phrases);
    prop_oneof![
        "[a-z0-9!#$%&*+/=?^_{|}~-]{1,12}@[a-z]{1,8}(\\.[a-z]{2,8}){1,3}".prop_map(|address| address),
        "<[a-z0-9.+]{1,12}@[a-z]{1,8}\\.[a-z]{2,8}>".prop_map(|address| address),
        "[a-z]{1,8}[0-9]{0,2}(\\.[a-z]{2,8}){1,3}".prop_map(|host| host),
        "https?://[a-z]{1,8}\\.[a-z]{2,5}/[a-z/?&=]{0,20}".prop_map(|url| url),
        words.clone().prop_map(|words| format!("\"{words}\"")),
        words.clone().prop_map(|words| format!("<{words}>")),
        words.clone().prop_map(|words| format!("[{words}]")),
        words.clone().prop_map(|words| format!("\"{words}\"@contoso.test")),
        words.prop_map(|words| format!("{}.contoso.test", words.replace([' ', '\''], "."))),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// An address, a host name, a URL or a quoted string between any two words of any reply changes nothing.
    #[test]
    fn what_is_put_into_a_reply_never_changes_the_reading(which in 0_usize..10_000, at in 0_usize..40, echo in echo()) {
        let all = cases();
        let case = &all[which % all.len()];
        let reply = case.reply();
        let words: Vec<&str> = reply.text.split(' ').collect();
        let at = at % (words.len() + 1);
        // Within a quotation a quotation mark would end it.
        prop_assume!(words[..at].concat().matches('"').count() % 2 == 0);
        let text = [&words[..at], &[echo.as_str()], &words[at..]].concat().join(" ");
        let inserted = case.reading(&Reply { text: text.clone().into(), ..reply.clone() });
        prop_assert_eq!(shown(&inserted), shown(&case.reading(&reply)), "{} -> {}", case.line, text);
    }

    /// Whatever a server says, it is read.
    #[test]
    fn any_words_are_read(code in 400_u16..600, text in "\\PC{0,200}", said in "\\PC{0,40}", at in 0_usize..8) {
        let steps = [Step::Greeting, Step::Ehlo, Step::StartTls, Step::Auth, Step::Mail, Step::Rcpt, Step::Data, Step::Dot];
        let transaction = Transaction { said: &[&said, "a@b"], name: &said, ..Transaction::default() };
        let reading = read(steps[at], &Reply::bare(code, text.into()), &transaction);
        prop_assert!(!reading.row.name.is_empty());
    }
}
