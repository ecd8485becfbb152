import CMLAPrefill

/// A struct of the ABI that begins with its size, as its caller's header has it, and may
/// grow at its end.
public protocol ABIStruct {
  /// The size of its first version: no caller has a smaller one.
  static var firstSize: Int { get }
  var struct_size: UInt32 { get }
  /// A field without a meaning yet: must be 0, so that it can get one.
  var reserved: UInt32 { get }
}

extension ABIStruct {
  /// What a struct of the library's own says.
  static var size: UInt32 { UInt32(MemoryLayout<Self>.size) }
  /// Of those without such a field.
  public var reserved: UInt32 { 0 }
}

// In the header's order.
extension mla_cpu_info: ABIStruct { public static var firstSize: Int { 112 } }
extension mla_call_stats: ABIStruct { public static var firstSize: Int { 56 } }
extension mla_tensor: ABIStruct { public static var firstSize: Int { 96 } }
extension mla_backend_registration: ABIStruct { public static var firstSize: Int { 24 } }
extension mla_selector_config: ABIStruct { public static var firstSize: Int { 48 } }
extension mla_backend_info: ABIStruct { public static var firstSize: Int { 56 } }
extension mla_context_chunk: ABIStruct { public static var firstSize: Int { 32 } }
extension mla_prefill_metadata: ABIStruct { public static var firstSize: Int { 32 } }
extension mla_context_plan_args: ABIStruct { public static var firstSize: Int { 40 } }
extension mla_context_plan_chunk: ABIStruct { public static var firstSize: Int { 64 } }
extension mla_backend_config: ABIStruct { public static var firstSize: Int { 40 } }
extension mla_new_tokens_args: ABIStruct { public static var firstSize: Int { 80 } }
extension mla_context_chunk_args: ABIStruct { public static var firstSize: Int { 80 } }
extension mla_merge_args: ABIStruct { public static var firstSize: Int { 80 } }
extension mla_backend_vtable: ABIStruct { public static var firstSize: Int { 104 } }
extension mla_layer_config: ABIStruct { public static var firstSize: Int { 72 } }
extension mla_layer_forward_args: ABIStruct { public static var firstSize: Int { 120 } }
extension mla_concat_and_cache_args: ABIStruct { public static var firstSize: Int { 56 } }
extension mla_gather_cache_args: ABIStruct { public static var firstSize: Int { 96 } }
extension mla_attention_args: ABIStruct { public static var firstSize: Int { 128 } }
extension mla_index_store_args: ABIStruct { public static var firstSize: Int { 56 } }
extension mla_index_select_args: ABIStruct { public static var firstSize: Int { 168 } }
