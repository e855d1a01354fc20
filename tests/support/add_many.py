"""Adds the entries of an LDIF file to a Samba AD, some hundred at a time: add_many.py SMB_CONF FILE."""
import sys

from samba.auth import system_session
from samba.param import LoadParm
from samba.samdb import SamDB

lp = LoadParm()
lp.load(sys.argv[1])
samdb = SamDB(session_info=system_session(lp), lp=lp)
with open(sys.argv[2], encoding="ascii") as file:
    entries = [entry for _, entry in samdb.parse_ldif(file.read())]
for first in range(0, len(entries), 250):
    samdb.transaction_start()
    for entry in entries[first : first + 250]:
        samdb.add(entry)
    samdb.transaction_commit()
