#!/bin/sh
# Writes to $1 what a role could change: files and their owners, units, kernel settings, filters.
set -eu
{
    find /etc /usr /opt /home /root /boot /srv /var -xdev \
        \( -path /var/log -o -path /var/lib/systemd -o -path /var/tmp -o -name '*.pyc' \
        -o -name __pycache__ -o -path /var/cache/ldconfig -o -path /root/.ansible \) -prune \
        -o -not -type d -printf '%p %m %U %G %s %T@ %l\n' | sort
    systemctl list-unit-files --no-legend --no-pager
    systemctl list-units --type=service --state=running --plain --no-legend --no-pager | cut -d' ' -f1
    sysctl --all 2>/dev/null | grep -E '^(kernel|net|fs|vm)\.' |
        grep -vE 'random|ns_last_pid|quota\.|nr_|inode|dentry|file-nr|count|tcp_mem|pty' || true
    nft --stateless list ruleset
} >"$1"
