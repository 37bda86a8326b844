-- Deletes some old versions, those of the catalogue with their changes. Returns a row if there were any.
select pruned
  from (select prune_catalogue_versions() + prune_accounts_versions() as pruned) versions
 where pruned > 0
