-- Deletes some old versions of the catalogue and their changes. Returns a row if there were any.
select pruned
  from prune_catalogue_versions() as pruned
 where pruned > 0
