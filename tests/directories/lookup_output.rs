//! What `fingerpost directory lookup` shows of an address: entry, kind, the rule that decided, and the verdict.

use fingerpost::config::{LdapConfig, Profile};

use support::test_node::TestNode;

/// Of somebody with a mailbox.
pub fn is_shown(config: &LdapConfig, address: &str) {
    let (name, more) = match &config.profile {
        Profile::Custom(_) => ("custom", "attributes = { addresses = [\"mailLocalAddress\"] }\n"),
        // eDirectory does not know all addresses.
        Profile::GroupWise => (
            "groupwise",
            "[[directory]]\nname = \"asked\"\nkind = \"call-ahead\"\nsend_connector = \"here\"\ntimeout = \"1s\"\n",
        ),
        Profile::Zimbra => ("zimbra", ""),
        Profile::Domino => ("domino", ""),
        // Its addresses have no domain there.
        Profile::Kerio => ("kerio", "domains = [\"contoso.com\"]\n"),
        Profile::OpenDirectory => ("open-directory", ""),
        Profile::Openldap => ("openldap", ""),
        Profile::ActiveDirectory => ("active-directory", ""),
        Profile::ActiveDirectorySynced => ("active-directory-synced", ""),
    };
    let domain = address.rsplit_once('@').unwrap().1;
    let (probe, password) = (config.probe.as_ref().unwrap(), config.password_file.as_ref().unwrap().display());
    let LdapConfig { urls, base, bind_dn, .. } = config;
    let mut node = TestNode::prepare();
    node.write(
        "fingerpost.toml",
        &format!(
            "[server]\nhostname = \"mx.contoso.com\"\nstate_dir = \"{{folder}}/state\"\n\n\
             [admin]\nmetrics_bind = \"{{metrics}}\"\nbind = \"{{admin}}\"\n\n\
             [[receive_connector]]\nname = \"internet\"\nbind = [\"{{smtp}}\"]\n\n\
             [[accepted_domain]]\ndomain = \"{domain}\"\ndeliver_to = \"here\"\n\n\
             [[send_connector]]\nname = \"here\"\nsmart_hosts = [\"[127.0.0.1]:9\"]\n\n\
             [spool]\nmin_free = \"16MiB\"\n\n\
             [[directory]]\nname = \"vendor\"\nprofile = \"{name}\"\nurls = {urls:?}\nbase = {base:?}\n\
             bind_dn = \"{bind_dn}\"\npassword_file = \"{password}\"\nprobe = \"{probe}\"\nmode = \"lookup\"\n{more}"
        ),
    );
    node.start();
    let output = node.run(&["directory", "lookup", address]);
    let shown = String::from_utf8_lossy(&output.stdout);
    println!("{name}: {shown}");
    for part in ["vendor  mailbox: ", ", by ", "resolved", "row 7"] {
        assert!(shown.contains(part), "{name}: no `{part}` in {shown}{}", String::from_utf8_lossy(&output.stderr));
    }
}
