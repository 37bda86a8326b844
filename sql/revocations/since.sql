-- Returns the revocations after version $1, or all that have not expired when $1 is below `pruned_through`. There is
-- always at least one row; without revocations its last columns are null.
select v.version, v.token, v.pruned_through, r.seq, r.token_id, r.user_id
  from versions v
  left join revocations r
    on r.seq > case when $1::bigint < v.pruned_through then 0 else $1 end
   and r.seq <= v.version
 where v.name = 'accounts'
 order by r.seq
