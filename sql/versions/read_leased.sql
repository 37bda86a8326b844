-- Returns the versions of catalogue and accounts in one row, and for how many milliseconds they may be used since before
-- the statement was sent: 0 if a version is younger than $1 milliseconds, null while a writer commits. Returns the ticket
-- of a lease, and its epoch. Runs as a transaction of its own, at read committed.
select catalogue_version, catalogue_token, accounts_version, accounts_token, lease_ms, ticket, epoch
  from read_versions_leased($1)
