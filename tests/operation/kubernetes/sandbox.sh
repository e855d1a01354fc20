# Runs a command as a container does: a root of its own that nobody can write, folders from outside, another user, no
# capabilities. Every step replaces this process, so that its id is the command's. Called by sandbox.rs.
#
# usage: sandbox.sh ROOT PROGRAM IDENTITY VOLUMES -- COMMAND...
#   IDENTITY: USER:GROUP:GROUP OF FILES
#   VOLUMES: folder=path=ro or rw, separated by spaces
set -eu
root=$1 program=$2 volumes=$4
user=${3%%:*} groups=${3#*:}
shift 5
mount -t tmpfs -o mode=0755 none "$root"
for folder in usr proc dev sys; do
    mkdir "$root/$folder"
    mount --rbind "/$folder" "$root/$folder"
done
mount -o remount,bind,ro "$root/usr"
for link in bin lib lib64 sbin; do ln -s "usr/$link" "$root/$link"; done
mkdir -p "$root/etc" "$root/program"
cp /etc/resolv.conf /etc/hosts "$root/etc"
touch "$root/program/fingerpost"
mount --bind "$program" "$root/program/fingerpost"
for volume in $volumes; do
    folder=${volume%%=*} path=${volume#*=}
    mkdir -p "$root${path%=*}"
    mount --bind "$folder" "$root${path%=*}"
    [ "${path##*=}" = rw ] || mount -o remount,bind,ro "$root${path%=*}"
done
mount -o remount,ro "$root"
exec chroot "$root" /usr/bin/setpriv --reuid "$user" --regid "${groups%%:*}" --groups "${groups##*:}" --no-new-privs \
    --bounding-set=-all --inh-caps=-all /usr/bin/env -i PATH=/program:/usr/bin POD_NAME="$POD_NAME" "$@"
