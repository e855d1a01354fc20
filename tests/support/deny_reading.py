"""Takes the right to read attributes of all that is in a container of a Samba AD, entry by entry, or gives it back:
deny_reading.py SMB_CONF CONTAINER ACE... ; --back before them gives back. What a container hands down counts less than what a
class gives everybody, so that each entry needs its own.
"""
import sys

import ldb
from samba.auth import system_session
from samba.dcerpc import security
from samba.ndr import ndr_pack, ndr_unpack
from samba.param import LoadParm
from samba.samdb import SamDB

settings, container, *aces = sys.argv[1:]
back = aces[0] == "--back"
aces = "".join(aces[1:] if back else aces)
lp = LoadParm()
lp.load(settings)
samdb = SamDB(session_info=system_session(lp), lp=lp)
sid = security.dom_sid(samdb.get_domain_sid())
only_rights = ["sd_flags:1:4"]

found = samdb.search(container, ldb.SCOPE_ONELEVEL, attrs=["nTSecurityDescriptor"], controls=only_rights)
for number, entry in enumerate(found):
    if number % 250 == 0:
        if number:
            samdb.transaction_commit()
        samdb.transaction_start()
    before = ndr_unpack(security.descriptor, entry["nTSecurityDescriptor"][0]).as_sddl(sid)
    after = before.replace(aces, "") if back else before.replace("(", aces + "(", 1)
    change = ldb.Message(entry.dn)
    packed = ndr_pack(security.descriptor.from_sddl(after, sid))
    change["nTSecurityDescriptor"] = ldb.MessageElement(packed, ldb.FLAG_MOD_REPLACE, "nTSecurityDescriptor")
    samdb.modify(change, only_rights)
samdb.transaction_commit()
