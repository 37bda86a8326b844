-- Deletes revocations of tokens that have expired.
with deleted as (
    delete from revocations
     where expires_at < now()
    returning seq
)
update versions
   set pruned_through = greatest(pruned_through, (select max(seq) from deleted))
 where name = 'accounts'
   and exists (select from deleted)
