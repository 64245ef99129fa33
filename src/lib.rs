//! Service discovery with published load.
