"""Gives a copied Samba AD controller an identity of its own, as a restore does: new_invocation_id.py SMB_CONF."""
import sys
import uuid

import ldb
from samba.auth import system_session
from samba.ndr import ndr_pack
from samba.dcerpc import misc
from samba.param import LoadParm
from samba.samdb import SamDB

lp = LoadParm()
lp.load(sys.argv[1])
samdb = SamDB(lp=lp, session_info=system_session())
new = misc.GUID(str(uuid.uuid4()))
change = ldb.Message(ldb.Dn(samdb, samdb.get_dsServiceName()))
change["invocationId"] = ldb.MessageElement(ndr_pack(new), ldb.FLAG_MOD_REPLACE, "invocationId")
samdb.modify(change)
