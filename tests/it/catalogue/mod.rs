//! Products, categories and tags: the responses of reads, and the effects of writes.

mod concurrency;
mod products;
mod taxonomy;
mod validation;
