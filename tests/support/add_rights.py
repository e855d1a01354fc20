"""Adds rights to entries of a Samba AD, as `samba-tool dsacl set` does to one: add_rights.py SMB_CONF ACES DN..."""
import sys

from samba.auth import system_session
from samba.netcmd.dsacl import cmd_dsacl_set
from samba.param import LoadParm
from samba.samdb import SamDB

settings, aces, *entries = sys.argv[1:]
lp = LoadParm()
lp.load(settings)
samdb = SamDB(session_info=system_session(lp), lp=lp)
for entry in entries:
    cmd_dsacl_set().add_ace(samdb, entry, aces)
