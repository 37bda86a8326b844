-- forgets revocations of tokens that have expired by themselves
with gone as (
    delete from revocations
     where expires_at < now()
    returning seq
)
update versions
   set pruned_through = greatest(pruned_through, (select max(seq) from gone))
 where name = 'accounts'
   and exists (select from gone)
