"""Adds the attributes of Exchange that recipients are told by to a provisioned Samba AD: schema.py SMB_CONF."""
import sys

import ldb
from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB

ATTRIBUTES = [
    # name, OID, attributeSyntax, oMSyntax
    ("targetAddress", "1.2.840.113556.1.2.352", "2.5.5.12", "64"),
    ("homeMDB", "1.2.840.113556.1.2.244", "2.5.5.1", "127"),
    ("msExchHomeServerName", "1.2.840.113556.1.4.7000.102.47", "2.5.5.12", "64"),
    ("msExchRecipientTypeDetails", "1.2.840.113556.1.4.7000.102.50855", "2.5.5.16", "65"),
    ("mailNickname", "1.2.840.113556.1.2.447", "2.5.5.12", "64"),
    ("msExchMailboxGuid", "1.2.840.113556.1.4.7000.102.11058", "2.5.5.10", "4"),
]

lp = LoadParm()
lp.load(sys.argv[1])
lp.set("dsdb:schema update allowed", "yes")
samdb = SamDB(session_info=system_session(lp), lp=lp)
schema = str(samdb.get_schema_basedn())
now = "dn:\nchangetype: modify\nadd: schemaUpdateNow\nschemaUpdateNow: 1\n"

for name, oid, syntax, om_syntax in ATTRIBUTES:
    extra = "oMObjectClass:: KwwCh3McAIVK\n" if om_syntax == "127" else ""
    samdb.add_ldif(
        f"dn: CN={name},{schema}\nobjectClass: attributeSchema\nattributeID: {oid}\nattributeSyntax: {syntax}\n"
        f"oMSyntax: {om_syntax}\n{extra}isSingleValued: TRUE\nlDAPDisplayName: {name}\nsystemOnly: FALSE\n"
        f"searchFlags: 1\n"
    )
samdb.modify_ldif(now)
may = "".join(f"mayContain: {name}\n" for name, *_ in ATTRIBUTES)
samdb.add_ldif(
    f"dn: CN=mailRecipientTest,{schema}\nobjectClass: classSchema\ngovernsID: 1.3.6.1.4.1.99999.1\n"
    f"lDAPDisplayName: mailRecipientTest\nobjectClassCategory: 3\nsubClassOf: top\n{may}"
)
samdb.modify_ldif(now)
for name in ("User", "Contact", "Group"):
    samdb.modify_ldif(
        f"dn: CN={name},{schema}\nchangetype: modify\nadd: auxiliaryClass\nauxiliaryClass: mailRecipientTest\n"
    )
samdb.modify_ldif(now)
