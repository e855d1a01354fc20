"""Adds to a provisioned Samba AD what every test finds there: first_entries.py SMB_CONF READER_PASSWORD. Prints a line for
each attribute of the schema with its `schemaIDGUID`, and one for the reader, `fingerpost`, with its `objectSid`.
"""
import sys

import ldb
from samba.auth import system_session
from samba.dcerpc import misc, security
from samba.ndr import ndr_unpack
from samba.param import LoadParm
from samba.samdb import SamDB

lp = LoadParm()
lp.load(sys.argv[1])
samdb = SamDB(session_info=system_session(lp), lp=lp)
base = samdb.domain_dn()
samdb.add_ldif(
    f"dn: CN=DB1,{base}\nobjectClass: container\n\n"
    f"dn: CN=postmaster,CN=Users,{base}\nobjectClass: user\nsAMAccountName: postmaster\n"
    f"proxyAddresses: SMTP:postmaster@contoso.test\nhomeMDB: CN=DB1,{base}\n"
)
samdb.newuser("fingerpost", sys.argv[2])

reader = samdb.search(f"CN=fingerpost,CN=Users,{base}", ldb.SCOPE_BASE, attrs=["objectSid"])[0]
print("fingerpost", ndr_unpack(security.dom_sid, reader["objectSid"][0]))
attributes = samdb.search(
    samdb.get_schema_basedn(),
    ldb.SCOPE_ONELEVEL,
    "(objectClass=attributeSchema)",
    ["lDAPDisplayName", "schemaIDGUID"],
)
for attribute in attributes:
    print(attribute["lDAPDisplayName"], ndr_unpack(misc.GUID, attribute["schemaIDGUID"][0]))
