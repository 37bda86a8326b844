-- Deletes some revocations of tokens that have expired. Returns a row if there were any.
with expired as (
    select seq
      from revocations
     where expires_at < now()
     limit 50000
), deleted as (
    delete from revocations
     where seq in (select seq from expired)
    returning seq
)
update pruned_revocations
   set pruned_through = greatest(pruned_through, (select max(seq) from deleted))
 where exists (select from deleted)
returning pruned_through
