-- Returns the revocations after the version with number $1 and token $2. There is always at least one row; without
-- revocations its last columns are null. `is_continuous` is false, and there are no revocations, when that version is
-- not in the log (any more), or when there are more than 10,000.
select v.version, v.token, feed.is_continuous, r.seq, r.token_id, r.user_id
  from (select version, token from accounts_versions order by version desc limit 1) v
 cross join lateral (
       select v.version - $1 between 0 and 10000
              and exists (select from accounts_versions known where known.version = $1 and known.token = $2)
              as is_continuous
       ) feed
  left join lateral (
       select seq, token_id, user_id
         from revocations
        where feed.is_continuous
          and seq > $1
          and seq <= v.version
       offset 0 -- keeps is_continuous a condition of the scan: without a known version no row is read
       ) r
    on true
 order by r.seq
