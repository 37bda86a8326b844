//! Products, categories and tags: the responses of reads, and the effects of writes.

mod cached_names;
mod concurrency;
mod if_match;
mod products;
mod taxonomy;
mod validation;
