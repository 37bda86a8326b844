-- what was revoked after version $1, and with $1 below `pruned_through` everything that is still in force;
-- always at least one row, which then carries nulls
select v.version, v.token, v.pruned_through, r.seq, r.token_id, r.user_id
  from versions v
  left join revocations r
    on r.seq > case when $1::bigint < v.pruned_through then 0 else $1 end
   and r.seq <= v.version
 where v.name = 'accounts'
 order by r.seq
